"""Serves one request to the broker, in a process of its own that ends with the request.

It finds out who asks, decides with the same policy code as the hook, and has a child make the bpffs
in the peer's namespaces.  The peer gets one mount that isn't attached anywhere.  The broker accepts
no fd from the peer, and tells it nothing more than the decision or why there is none.
"""

import array
import os
import socket
from collections.abc import Mapping
from typing import NoReturn

from ..audit.allowance import spend
from ..container.nesting import outermost_owner
from ..delegation.annotations import parse
from ..errors import BAD_ANNOTATION, BAD_STATE, HookError, quote

# The hook imports these only when they are needed; the broker has them before the first request.
from ..pipeline import outcomes
from ..pipeline.case import Case
from ..pipeline.served import a_bug, in_order, record, settle, told
from ..policy.compiled import Compiled
from ..policy.subject import Subject, unnamed
from ..policy.subjects import of_peer
from ..running.sharing import shares
from ..shim.preload import unchangeable
from ..syslog import ERROR, log
from ..text.strict_json import json_object, load_json
from . import wire
from .making import Making
from .peer import Peer

# Seconds within which the peer has to send a message, and within which all has to be done.
_PEER_DEADLINE = 5
DEADLINE = 10


def serve(sock: socket.socket, policy: Compiled | HookError, parent: int) -> NoReturn:
    """Serve the peer at the other end of `sock`, and end.

    `policy` is the policy in force, or the error in it; `parent` is the broker's pid.
    """
    try:
        settle(parent, DEADLINE, sock.fileno())
        sock.settimeout(_PEER_DEADLINE)
        refused = _refusal(sock, policy)
        if refused:
            answer(sock, refused)
    except OSError:
        pass  # The peer has hung up, or doesn't read.
    finally:
        os._exit(0)


def _refusal(sock: socket.socket, policy: Compiled | HookError) -> Mapping[str, object] | None:
    """Serve the peer; returns the refusal to send if the peer gets nothing, or else None."""
    try:
        _serve(sock, policy)
    except HookError as error:
        return wire.refused(error.code, told(error))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  A bug must not put a traceback into the log.
        bug = a_bug("broker", error)
        return wire.refused(bug.code, told(bug))
    return None


def _serve(sock: socket.socket, policy: Compiled | HookError) -> None:
    who = "?"
    owner = 0
    case: Case | None = None
    try:
        with Peer(sock) as peer:
            who = f"of uid {peer.uid}"
            # Refusals are counted for the outermost namespace's owner, since a user could make any
            # number of inner namespaces with other owners.
            owner = outermost_owner(peer.container)
            # 1. state and 2. annotations: the hook has read them, and sends what matters
            ask = wire.read_ask(_decoded(_receive(sock)))
            who = quote(ask.id)[1:-1]
            case = Case(
                ask.id,
                ask.annotations,
                lambda: in_order(policy),
                peer={"pid": peer.pid, "uid": peer.uid, "gid": peer.gid},
                user=owner,
            )
            _delegate(sock, peer, ask, case)
    except HookError as error:
        said = f"broker: {who}: {error} (exit code {error.code})"
        if case is not None:
            outcomes.refused(case, error, said)
        elif spend(owner, len(said)):
            log(ERROR, said)
        raise


def _delegate(sock: socket.socket, peer: Peer, ask: wire.Ask, case: Case) -> None:
    """Take steps 3 to 10, except for the peer's own half and the read-back."""
    # 4. policy: first, so that the host's log has its faults even if the request is wrong
    case.policy()
    # 3. request
    request = case.request(lambda: parse(ask.annotations, unnamed))
    if request is None:
        raise HookError(BAD_ANNOTATION, "nothing is asked for")
    if request.shim:
        unchangeable(peer.container)
    # 5. masks, 6. subject, 7. grant
    decision = case.judge(request, lambda policy: _subject(peer, ask.claims, policy))
    if decision is None:
        nothing = wire.Granted(masks={}, rule="", dropped=case.dropped, trimmed=())
        answer(sock, wire.granted(nothing))
        return
    case.prepare()
    given = wire.Granted(
        masks=decision.grant.masks,
        rule=decision.rule,
        dropped=case.dropped,
        trimmed=decision.trimmed,
    )
    answer(sock, wire.granted(given))
    message = _receive(sock)
    if not message:
        # The peer only wanted the decision, which it has.
        return
    wire.read_go_on(_decoded(message))
    # 8. halves: this is the host half; the peer holds the directory and will attach the mount.
    with Making(peer.container) as half:
        mount = half.make(decision.grant, case.guard)
        if not peer.unchanged():
            raise HookError(BAD_STATE, "whoever asked the broker has changed its namespaces")
        # 10. record: before the peer has the mount; 9. read-back is the peer's step
        record("broker", case)
        answer(sock, wire.mounted(), mount)
    case.say(mounted=True)


def _subject(peer: Peer, claimed: Mapping[str, str], policy: Compiled) -> Subject:
    # A hook is looked at like any other peer: before pivot_root(2) it still sees the host's
    # cgroups, and so counts as sharing them.
    return of_peer(
        claimed,
        peer.user(),
        engine=policy.engine,
        uses=policy.uses,
        groups=peer.groups,
        shared=lambda: shares(peer.container),
    )


def _receive(sock: socket.socket) -> bytes:
    """The next message, b"" at the end.  Raises HookError, TimeoutError."""
    # There is no room for fds, so the kernel closes those that come along, and sets MSG_CTRUNC.
    data, _, flags, _ = sock.recvmsg(wire.LONGEST + 1)
    if flags & socket.MSG_CTRUNC:
        raise HookError(
            BAD_STATE, "the request to the broker came with fds, and the broker takes none"
        )
    if len(data) > wire.LONGEST:
        raise HookError(BAD_STATE, f"the request to the broker has more than {wire.LONGEST} bytes")
    return data


def _decoded(data: bytes) -> object:
    try:
        return load_json(data, unique=True)
    except ValueError as error:
        raise HookError(BAD_STATE, f"the request to the broker isn't JSON: {error}") from None


def answer(sock: socket.socket, message: Mapping[str, object], fd: int = -1) -> None:
    """Send `message`, together with `fd` if that isn't -1.  Raises OSError."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
    sock.sendmsg([json_object(message).encode()], ancillary)
