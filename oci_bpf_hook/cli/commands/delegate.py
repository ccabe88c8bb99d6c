"""`oci-bpf-hook delegate` mounts a delegated bpffs in a running container, or covers one.

It takes the hook's own steps (`case.Case`), from the request to the audit record, with the numbers
of `hook.main`.  The state is the running container's, and the annotations are made from the command
line.
"""

import argparse
import os
import signal
from typing import Any

from ...bpf.names import KINDS
from ...container.namespaces import Container
from ...delegation.annotations import MODE, PATH, PREFIX, Request
from ...delegation.masks import Grant, show
from ...errors import BAD_STATE, DONE, MOUNT_FAILED, NO_BROKER, USAGE, HookError, quote
from ...kernel.process import CAP_BPF, CAP_SYS_ADMIN
from ...mount import container_half
from ...mount.host_half import HostHalf
from ...pipeline.case import Case
from ...pipeline.outcomes import refused, revoked
from ...policy.compiled import Compiled
from ...policy.store.cache import in_force
from ...policy.subject import Subject
from ...policy.subjects import of_running
from ...running.containers import Running
from ...running.delegations import Delegation, of_container, user_name
from ...running.holders import DIRECTORY, MOUNT, TOKEN, UNSEEN, holders
from ...running.owner import user_behind
from ...running.process import status
from ...running.sharing import shares
from ...users import groups_of
from ..options import container as container_options
from ..options import request
from ..options.output import FAINT, HEAD, JSON, OK, PROBLEM, WARNING, Output, print_json, styled
from ..options.table import argument

_HAS = {
    TOKEN: "has a token",
    DIRECTORY: "has the old bpffs open, and can make tokens",
    MOUNT: "sees the old bpffs in a mount namespace of its own, and can make tokens",
    UNSEEN: "has too many mounts to look at, and may see the old bpffs and make tokens",
}
_LISTS = tuple((kind.option.removeprefix("delegate_"), kind.option) for kind in KINDS)

ABOUT = """
Mounts a delegated bpffs in a container that is already running, or covers one with an empty bpffs
(--revoke). It takes the same steps as the hook: the same policy, the same check of what was
mounted, and a line in the audit trail. It needs root.

An existing token keeps what it was made with until every process that holds it has ended. If there
may be such tokens, delegate names the processes.
"""
ARGUMENTS = (
    *container_options.ARGUMENTS,
    argument(
        *("--profile",),
        action="append",
        default=[],
        metavar="NAME",
        help="a profile of the policy; may be repeated",
    ),
    *(
        argument(f"--{short}", metavar="LIST", help=f"the list {option}, as in the annotation")
        for short, option in _LISTS
    ),
    argument(
        "--path", metavar="PATH", help=f"where to mount it in the container (default: {PATH})"
    ),
    argument("--dry-run", action="store_true", help="say what would be done, and do nothing"),
    argument(
        *("--revoke",),
        action="store_true",
        help="cover every delegated bpffs, or the one at --path, with an empty one",
    ),
    JSON,
)


def run(options: argparse.Namespace) -> int:
    # 2. annotations
    asked = _annotations(options)
    lists = asked.keys() - {f"{PREFIX}path"}
    if options.revoke and lists:
        raise HookError(USAGE, "--revoke can't be combined with something to delegate")
    if not options.revoke and not lists:
        raise HookError(
            USAGE,
            "nothing is asked for: give --profile, or any of --cmds, --maps, --progs, --attachs",
        )
    if os.geteuid():
        raise HookError(NO_BROKER, "delegating BPF needs root; run this with sudo")
    # If SIGCHLD were ignored the kernel would reap the container half, and its pid could be another
    # process's.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # 1. state
    one = container_options.running(options)
    with Container(one.pid) as container:
        if not container.is_in(one.user, one.mount):
            raise HookError(BAD_STATE, f"{one.label} has ended meanwhile")
        case = Case(one.id or f"pid-{one.pid}", asked, in_force)
        # 4. policy, which names what the container has already
        before = list(of_container(one, case.enums(), {}))
        for each in before:
            if each.unseen:
                raise HookError(
                    BAD_STATE,
                    f"the mounts of {one.label} can't be looked at: {each.unseen}; so what it has "
                    "isn't known, and nothing was done",
                )
        work = _revoke if options.revoke else _delegate
        answer = work(one, container, case, before, options)
    if options.json:
        print_json(answer)
    else:
        _print(answer)
    left = answer.get("failed") or (answer.get("in_reach") and options.path is None)
    return MOUNT_FAILED if left else DONE


def _annotations(options: argparse.Namespace) -> dict[str, str]:
    """The annotations that ask for what the command line asks for."""
    found = {
        f"{PREFIX}{option}": text
        for short, option in _LISTS
        if (text := getattr(options, short)) is not None
    }
    if options.profile:
        found[f"{PREFIX}profile"] = ",".join(options.profile)
    if options.path is not None:
        found[f"{PREFIX}path"] = options.path
    return found


def _delegate(
    one: Running,
    container: Container,
    case: Case,
    before: list[Delegation],
    options: argparse.Namespace,
) -> dict[str, Any]:
    # 3. request
    asked = request.request(_annotations(options), judge=case.resolve)
    below = [each for each in before if each.path == asked.path]
    covers = [each for each in below if not each.covered]
    outcome = _outcome(one, container, case, asked, dry_run=options.dry_run)
    decision = case.decision
    if decision is None:
        raise HookError(USAGE, "nothing is asked for: each list removes all of its own items")
    return {
        **_answer(outcome, one, container, asked.path),
        "granted": {
            option: show(mask, case.enums()[option])
            for option, mask in decision.grant.masks.items()
        },
        "rule": decision.rule,
        "confined": decision.confined,
        "trimmed": list(decision.trimmed),
        "covers": [each.shown for each in covers] if outcome != "already delegated" else [],
        "holders": _holders(one, below) if outcome == "delegated" and covers else [],
        "unusable": not status(container).bounding >> CAP_BPF & 1,
    }


def _outcome(
    one: Running, container: Container, case: Case, asked: Request, *, dry_run: bool
) -> str:
    """Decide about what is `asked` for and, without `dry_run`, do it.  Returns the outcome."""
    try:
        # 5. masks, 6. subject, 7. grant
        decision = case.judge(asked, lambda policy: _subject(one, container, policy))
        if decision is None or dry_run:
            case.close()
            return "would delegate"
        # 8. halves, 9. read-back, 10. record
        mounted = case.give(container, container_half.RUNNING)
    except HookError as error:
        if not dry_run:
            refused(case, error)
        raise
    return "delegated" if mounted else "already delegated"


def _subject(one: Running, container: Container, policy: Compiled) -> Subject:
    return of_running(
        {"container": one.name, "image": one.image},
        user_behind(container),
        engine=one.engine,
        vouched=one.vouched,
        default=policy.engine,
        groups=groups_of,
        shared=lambda: shares(container),
    )


def _revoke(
    one: Running,
    container: Container,
    case: Case,
    before: list[Delegation],
    options: argparse.Namespace,
) -> dict[str, Any]:
    every = [each for each in before if options.path in (None, each.path)]
    if not every:
        where = f" at {quote(options.path)}" if options.path else ""
        raise HookError(USAGE, f"{one.label} has nothing delegated{where}")
    gone = [each for each in every if not each.covered]
    outcome = "would revoke" if options.dry_run else "revoked"
    in_reach: list[str] = []
    failed: list[str] = []
    if not gone:
        outcome = "already revoked"
    elif not options.dry_run:
        for path in dict.fromkeys(each.path for each in gone):
            try:
                _cover(container, path, case)
            except HookError as error:  # The container's root can make one fail; the others go on.
                failed += error.sentences
        # The container's root may have moved these mounts meanwhile, or bound them elsewhere.
        devices = {each.device for each in gone}
        for each in of_container(one, case.policy().enums, {}):
            if each.unseen:
                failed.append(
                    f"whether the bpffs is mounted elsewhere too isn't known: {each.unseen}"
                )
            elif not each.covered and each.device in devices:
                in_reach.append(each.path)
    return {
        **_answer(outcome, one, container, every[0].path),
        "paths": list(dict.fromkeys(each.path for each in gone or every)),
        "covers": [each.shown for each in gone],
        "in_reach": in_reach,
        "failed": failed,
        # There may also be tokens from those that were covered before.
        "holders": _holders(one, every),
        "uncoverable": bool(status(container).bounding >> CAP_SYS_ADMIN & 1),
    }


def _cover(container: Container, path: str, case: Case) -> None:
    """Mount a bpffs that delegates nothing over the one at `path`, and record that."""
    policy = case.policy()
    with HostHalf(container, container_half.RUNNING) as half:
        if not half.mount(Grant(masks={}, path=path, mode=MODE), policy.enums):
            raise HookError(MOUNT_FAILED, f"an empty bpffs is already mounted on {path}")
        half.keep()
    revoked(case, path)


def _holders(one: Running, gone: list[Delegation]) -> list[dict[str, Any]]:
    return [
        {"pid": held.pid, "name": held.name, "fd": held.fd, "what": held.what}
        for held in holders({each.device for each in gone}, one.mount)
    ]


def _answer(outcome: str, one: Running, container: Container, path: str) -> dict[str, Any]:
    user = user_behind(container)
    return {
        "outcome": outcome,
        "container": {
            "name": one.name,
            "id": one.id,
            "pid": one.pid,
            "engine": one.engine,
            "user": user,
        },
        "label": one.label,
        "path": path,
    }


def _print(answer: dict[str, Any]) -> None:
    out = Output()
    outcome = answer["outcome"]
    label = styled(HEAD, answer["label"])
    if "granted" in answer:
        words = " ".join(f"{option}={text}" for option, text in answer["granted"].items())
        out.line(styled(OK, outcome), " to ", label, f" at {answer['path']}: {words}")
        out.line(styled(FAINT, f"by rule {answer['rule']}"))
        if not answer["confined"]:
            out.line(styled(WARNING, "unconfined"), ": the container is trusted with the kernel")
        for item in answer["trimmed"]:
            out.line(styled(WARNING, "trimmed"), f": {item}")
    else:
        out.line(styled(OK, outcome), " from ", label, f" at {', '.join(answer['paths'])}")
    if answer["container"]["user"]:
        # The user who runs the engine also chose the container's name.
        name = user_name(answer["container"]["user"])
        out.line(styled(WARNING, "not root's"), f": this container is {name}'s own")
    _print_old(out, answer)


def _print_old(out: Output, answer: dict[str, Any]) -> None:
    """Print what happens to the bpffs that is covered now, and what can still be done with it."""
    for shown in answer["covers"]:
        words = " ".join(f"{option}={text}" for option, text in shown.items())
        out.line(
            f"the old bpffs stays mounted under the new one, where no path leads to it: {words}"
        )
    if answer["covers"]:
        new = "get what is mounted now" if "granted" in answer else "can't be made there"
        out.line(f"new tokens {new}.")
        out.line("existing tokens keep what they were made with until their holders end.")
        out.line("a remount would change nothing, since the kernel doesn't reconfigure a bpffs.")
    for text in answer.get("failed", ()):
        out.line(styled(PROBLEM, "not revoked"), f": {text}")
    for path in answer.get("in_reach", ()):
        out.line(styled(WARNING, "still there"), f": the same bpffs is mounted at {path}")
    for held in answer["holders"]:
        fd = "" if held["fd"] is None else f" (fd {held['fd']})"
        out.line(
            styled(WARNING, "still there"),
            f": pid {held['pid']} ({held['name']}) {_HAS[held['what']]}{fd}",
        )
    if answer["holders"]:
        out.line(f"to be rid of these, restart {answer['label']}")
    if answer.get("unusable"):
        out.line(
            styled(WARNING, "of no use"),
            ": no process of this container can have CAP_BPF, which making a token needs; start "
            "the container with --cap-add BPF",
        )
    if answer.get("uncoverable"):
        out.line(
            styled(WARNING, "not for good"),
            ": whoever has CAP_SYS_ADMIN in this container can unmount the cover",
        )
