"""`oci-bpf-hook guard` loads, unloads and shows the BPF LSM programs that confine tokens."""

import argparse
import time
from contextlib import suppress
from typing import Any

from ...bpf.names import KINDS
from ...errors import DONE, FOUND, KERNEL_CANNOT, MOUNT_FAILED, HookError
from ...guard.lsm import load, refusals, release
from ...guard.pinned import AbsentError, in_force
from ...kernel.enums import enums
from ...policy.store.cache import in_force as policy_in_force
from ...running.delegations import Delegation, delegations
from ..options.output import FAINT, HEAD, JSON, OK, PROBLEM, WARNING, Output, print_json, styled
from ..options.table import Argument, Command, argument

ABOUT = """
Loads, unloads and shows the guard, a set of BPF LSM programs that confines what the tokens of
confined grants can do.

A token says which types of programs a container may load, but not what these programs call: without
the guard, every program reaches the kernel. With it the tokens of confined grants give no
capability but CAP_BPF and CAP_NET_ADMIN, and their programs can call only the kernel functions on
the guard's list. It needs Linux 6.9 or later with `bpf` among its LSMs, and libbpf. It leaves other
tokens alone, such as those of Incus, of systemd, or of an administrator's own mount.

`guard on` loads it until the next boot. `systemctl enable --now oci-bpf-hook-guard.service` loads
it at each boot before the engines start, and puts what it refuses in the audit trail. Before each
confined grant of prog_load the hook, the broker and `delegate` check that the guard is in force,
and refuse if it isn't.

If this host can't have the guard, `guard on` says what is missing, and a guard that was in force
stays. `guard off` refuses while containers run that the guard confines, or tokens of theirs are
left, and names them.
"""
_DRY_RUN = argument(
    "--dry-run",
    action="store_true",
    help="only say what would be confined no longer, or why off refuses",
)
_FORCE = argument(
    *("--force",),
    action="store_true",
    help="unload it even while it confines containers, and confine them no longer",
)


def _on(options: argparse.Namespace) -> int:
    done = load.turn_on()
    # At boot this runs before any engine: then no container has to wait until that is compiled.
    with suppress(HookError):
        policy_in_force()
    if options.json:
        print_json({"changed": done.changed, "digest": done.digest})
        return DONE
    out = Output()
    if done.changed:
        out.line(styled(OK, "on"), ": the guard confines the tokens of confined grants from now on")
        out.line(
            "it lasts until the next boot; systemctl enable --now oci-bpf-hook-guard.service loads "
            "it at each boot"
        )
    else:
        out.line(styled(OK, "on"), ": the guard of this version is in force already")
    return DONE


def _off(options: argparse.Namespace) -> int:
    if options.dry_run:
        kept, changed = _kept(force=options.force), load.there()
    else:
        with release.nothing_marked(force=options.force):
            kept, changed = _kept(force=options.force), load.turn_off()
    if options.json:
        answer = {"dry_run": options.dry_run, "changed": changed, "released": list(kept)}
        print_json(answer)
        return DONE
    out = Output()
    out.line(styled(OK, "off"), "" if changed else ": there is no guard")
    for label in kept:
        out.line(styled(WARNING, "released"), f": {label} is trusted with the kernel without it")
    if options.dry_run:
        out.line(styled(FAINT, "nothing was done"))
    return DONE


def _kept(*, force: bool) -> dict[str, str]:
    kept = held()
    if kept and not force:
        raise HookError(MOUNT_FAILED, *kept.values())
    return kept


def held() -> dict[str, str]:
    """What the guard confines or may confine, each with a sentence why the guard has to stay.

    These are containers, and tokens that no container of today has.
    """
    if not load.there():
        return {}
    try:
        in_force().__exit__(None, None, None)
        known = True
    except AbsentError:  # It is another version's or incomplete, but may still confine tokens.
        known = False
    every = delegations(enums(KINDS))
    found = {one.container.label: _why_not(one, known) for one in every if not known or _held(one)}
    if known and not found and (count := release.lasting_tokens()):
        found[f"{count} tokens"] = (
            f"the guard confines {count} tokens that no container here has: processes have them "
            "open, or programs run that were loaded with them; without the guard these are trusted "
            "with the kernel; end them, or give --force"
        )
    return found


def _held(one: Delegation) -> bool:
    # If the bpffs is covered or unmounted it isn't known, and the container may have tokens.
    return one.confined is not False


def _why_not(one: Delegation, known: bool) -> str:
    return (
        f"{one.container.label} {'is' if known and one.confined else 'may be'} confined by the "
        "guard, and without the guard would be trusted with the kernel; stop the container first, "
        "or give --force"
    )


def _status(options: argparse.Namespace) -> int:
    why = ""
    try:
        in_force().__exit__(None, None, None)
    except AbsentError as error:
        why = str(error)
    answer: dict[str, Any] = {
        "in_force": not why,
        "why": why or None,
        "current": not why and load.is_current(),
        "obstacles": list(map(str, load.obstacles())) if why else [],
        "tokens": None if why else load.tokens(),
        "refusals": [] if why else [_row(one) for one in refusals.all_last()],
    }
    if options.json:
        print_json(answer)
    else:
        _print(answer)
    return FOUND if why else DONE


def _row(one: refusals.Refusal) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__} | {"text": str(one)}


def _print(answer: dict[str, Any]) -> None:
    out = Output()
    if answer["why"]:
        out.line(styled(PROBLEM, "off"), f": {answer['why']}")
        for text in answer["obstacles"]:
            out.line(styled(PROBLEM, "can't be turned on"), f": {text}")
        if not answer["obstacles"]:
            out.line(styled(FAINT, "sudo oci-bpf-hook guard on"))
        return
    out.line(styled(OK, "on"), f": {answer['tokens']} tokens are confined")
    if not answer["current"]:
        out.line(
            styled(WARNING, "older"),
            ": another version loaded the guard; `oci-bpf-hook guard on` replaces it",
        )
    if answer["refusals"]:
        out.line(styled(HEAD, "refused"), ", the newest first:")
    for one in answer["refusals"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["time"]))
        out.line(f"{when} user namespace {one['space']}: {one['text']}")


def _audit(options: argparse.Namespace) -> int:
    try:
        in_force().__exit__(None, None, None)
        count = refusals.to_trail()
    except AbsentError as error:
        raise HookError(KERNEL_CANNOT, f"there are no refusals to record: {error}") from None
    if options.json:
        print_json({"recorded": count})
    return DONE


def _command(name: str, text: str, run: Any, *arguments: Argument) -> Command:
    return Command(name=name, help=text, arguments=(*arguments, JSON), run=run)


COMMANDS = (
    _command("on", "load the guard, or replace an older one", _on),
    _command("off", "unload the guard", _off, _FORCE, _DRY_RUN),
    _command("status", "say whether the guard is in force, and what it has refused", _status),
    _command(
        "audit", "write what the guard has refused since the last time to the audit trail", _audit
    ),
)
