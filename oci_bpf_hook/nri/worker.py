"""Serves one creation of a container, in a process of its own that ends with it.

It decides with the same policy code as the hook, has the bpffs made in the pod's user namespace,
and has it attached where the engine finds it.  The plugin gets the answer for the engine.
"""

import os
import socket
from importlib import import_module
from typing import NoReturn

from ..broker.making import Making
from ..delegation.annotations import PATH, PREFIX, Request, asked, parse
from ..errors import BAD_STATE, MOUNT_FAILED, NOT_AS_GRANTED, HookError, quote
from ..mount.failure import not_as_granted
from ..mount.host_half import fields_of, mountinfo_of, wrong
from ..oci.cdi import TOKEN_PATH
from ..oci.state import is_id
from ..pipeline.case import Case
from ..pipeline.outcomes import refused
from ..pipeline.served import a_bug, in_order, record, settle, told
from ..policy.compiled import Compiled
from ..policy.decide import Decision
from ..policy.subject import ENGINES, Subject, identify
from ..policy.subjects import of_pod
from ..shim.preload import added
from ..values import Value
from .engine import Engine
from .place import EngineHalf, path_of
from .pod import Pod, free
from .wire import messages
from .wire.messages import Creation, Mount
from .wire.protobuf import MalformedError

# What the hook imports only when it is needed, the plugin has before the first request.
_AHEAD = (
    "audit.write",
    "delegation.lint",
    "delegation.problems",
    "guard.confine",
    "policy.refusal",
)
for _name in _AHEAD:
    import_module(f"{__package__.rpartition('.')[0]}.{_name}")

# Seconds after which the process ends in any case; the plugin ends it before.
_LONGEST = 3
# The same for one that collects mounts, for which nobody waits.
COLLECTING = 20
_PRELOAD = "LD_PRELOAD="
_OPTIONS = ("bind", "nosuid", "nodev", "noexec")
WHO = "NRI plugin"
# The first byte of what the plugin gets: GRANTED and EMPTY are followed by the answer for the
# engine, and REFUSED by the sentence.
GRANTED = b"+"
EMPTY = b"."
REFUSED = b"!"
# And of those that collect mounts: LEFT is followed by a container's id, and COLLECTED says that
# the mount isn't there any more.
COLLECTED = b"0"
LISTED = b"="
LEFT = b"-"


class Situation(Value):
    """What all creations have in common: the `engine` that asks, its name, and the policy."""

    __slots__ = ("engine", "policy", "runtime")
    engine: Engine
    runtime: str
    policy: Compiled | HookError


def serve(sock: socket.socket, payload: bytes, situation: Situation, parent: int) -> NoReturn:
    """Serve the request `payload`, answer through `sock`, and end.

    `parent` is the plugin's pid.
    """
    try:
        settle(parent, _LONGEST, sock.fileno(), *situation.engine.fds())
        _serve(sock, payload, situation)
    except OSError:
        pass  # The plugin has gone.
    finally:
        os._exit(0)


def _serve(sock: socket.socket, payload: bytes, situation: Situation) -> None:
    try:
        creation = messages.read_create(payload)
    except MalformedError as error:
        sock.send(REFUSED + sentence(HookError(BAD_STATE, f"the request {error}")))
        return
    case = Case(
        creation.id,
        creation.annotations,
        lambda: in_order(situation.policy),
        engine=situation.runtime if situation.runtime in ENGINES else None,
        find_name=lambda: creation.name,
    )
    try:
        if asked(creation.annotations):
            if not is_id(creation.id):
                raise HookError(BAD_STATE, f"the container has no usable id ({quote(creation.id)})")
            sock.send(_delegate(creation, situation, case))
        else:
            sock.send(EMPTY)
    except HookError as error:
        _refuse(sock, creation, case, error)
    except Exception as error:  # noqa: BLE001  A bug must not put a traceback into the log.
        _refuse(sock, creation, case, a_bug(WHO, error))


def _refuse(sock: socket.socket, creation: Creation, case: Case, error: HookError) -> None:
    who = quote(creation.id)[1:-1]
    refused(case, error, f"{WHO}: {who}: {error} (exit code {error.code})")
    sock.send(REFUSED + sentence(HookError(error.code, *told(error))))


def sentence(error: HookError) -> bytes:
    """What the engine is told of an `error`, and through it whoever wants the container."""
    return f"oci-bpf-hook: {error} (exit code {error.code})".encode("utf-8", "backslashreplace")


def _delegate(creation: Creation, situation: Situation, case: Case) -> bytes:
    """Take steps 3 to 10, and return the answer; the request was steps 1 and 2."""
    # 4. policy: first, so that the host's log has its faults even if the request is wrong
    case.policy()
    # 3. request
    request = case.request(lambda: _parse(creation))
    if request is None:
        return EMPTY
    free(request.path, creation.mounts)
    if request.shim:
        _has_shim(creation)
    with EngineHalf(situation.engine) as half:
        pod = Pod(creation, half)
        # 5. masks, 6. subject, 7. grant
        decision = case.judge(request, lambda policy: _subject(creation, pod, policy, case))
        if decision is None:
            return EMPTY
        case.prepare()
        _give(half, pod, creation.id, case, decision)
        half.keep()
    case.say(mounted=True)
    return GRANTED + _answer(creation, request.path)


def _parse(creation: Creation) -> Request | None:
    # What the pod's author says about the container's name doesn't count.
    ours = {key: text for key, text in creation.annotations.items() if key.startswith(PREFIX)}
    return parse(ours, lambda: creation.name)


def has_its_mount(creation: Creation) -> None:
    """Refuse to start a container that asks and was created without us.

    An engine goes on without a plugin that doesn't answer.  Raises HookError (MOUNT_FAILED).
    """
    request = _parse(creation)
    # If names were dropped, nothing may have been left to ask for.
    if request is None or request.drop_unknown:
        return
    if all(one.source != path_of(creation.id) for one in creation.mounts):
        raise HookError(
            MOUNT_FAILED,
            "the container was created while the plugin wasn't there, and so without its "
            "delegation; it has to be created again",
        )


def _has_shim(creation: Creation) -> None:
    """Refuse a container that asks for the shim, unless a CDI device has added it."""
    # Of a variable that is there twice the last one counts.
    preload = [text for text in creation.environment if text.startswith(_PRELOAD)]
    added(
        "".join(preload[-1:]).removeprefix(_PRELOAD), [one.destination for one in creation.mounts]
    )


def _give(half: EngineHalf, pod: Pod, identity: str, case: Case, decision: Decision) -> None:
    """Have the mount made, attached where the engine finds it, read back, and recorded."""
    # 8. halves: the pod's makes the mount, and the engine's attaches it
    with Making(pod, half.seconds) as making:
        mount = making.make(decision.grant, case.guard)
        half.attach(identity, mount)
        # 9. read-back: as the engine's mount namespace shows it
        assert making.place is not None
        fields = fields_of(mountinfo_of(str(half.pid)), making.place[0])
        found = wrong(making.place, fields, decision.grant, case.enums())
        if found:
            raise not_as_granted(found)
        if fields[4] != path_of(identity):
            raise HookError(NOT_AS_GRANTED, f"the mount isn't at {path_of(identity)}")
    # 10. record
    record(WHO, case)


def _subject(creation: Creation, pod: Pod, policy: Compiled, case: Case) -> Subject:
    engine = case.engine()
    # Of an engine that isn't known nobody knows which of these annotations it sets itself.
    image = creation.image or (
        identify(creation.engine_annotations, engine)["image"] if engine else None
    )
    return of_pod(
        {
            "container": creation.name or None,
            "image": image,
            "namespace": creation.namespace or None,
            "pod": creation.pod or None,
        },
        creation.annotations,
        pod,
        engine=engine,
        uses=policy.uses,
    )


def _answer(creation: Creation, path: str) -> bytes:
    """The answer to the engine: the bind mount, and where libbpf finds it."""
    mount = Mount(destination=path, kind="bind", source=path_of(creation.id), options=_OPTIONS)
    set_already = any(one.startswith(f"{TOKEN_PATH}=") for one in creation.environment)
    variables = {} if path == PATH or set_already else {TOKEN_PATH: path}
    return messages.adjusted(mount, variables)


def collect(sock: socket.socket, engine: Engine, identity: str, parent: int) -> NoReturn:
    """Detach the mount for the container `identity`, and end."""
    try:
        settle(parent, COLLECTING, sock.fileno(), *engine.fds())
        with EngineHalf(engine, COLLECTING) as half:
            half.remove(identity)
        sock.send(COLLECTED)
    except (HookError, OSError):
        pass  # What is left is collected when the next session begins.
    finally:
        os._exit(0)


def sweep(sock: socket.socket, engine: Engine, told: list[bytes], parent: int) -> NoReturn:
    """Say LISTED, then LEFT for each mount of a container that isn't started yet, and end.

    The engine has `told` of all containers.  Other mounts that there were before LISTED are
    detached.
    """
    try:
        settle(parent, COLLECTING, sock.fileno(), *engine.fds())
        with EngineHalf(engine, COLLECTING) as half:
            listed = half.listed()
            sock.send(LISTED)
            keep = messages.unstarted(told, listed)
            for identity in listed:
                if identity in keep:
                    sock.send(LEFT + identity.encode("utf-8", "surrogateescape"))
                else:
                    half.remove(identity)
    except (HookError, OSError):
        pass  # As above.
    finally:
        os._exit(0)
