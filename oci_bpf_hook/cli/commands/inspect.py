"""`oci-bpf-hook inspect` shows which containers have a delegation, and how far each reaches."""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ... import whole
from ...bpf.names import KINDS, Enum
from ...delegation.masks import show
from ...errors import DONE, USAGE, HookError, quote
from ...kernel import enums as kernel
from ...running import containers
from ...running.delegations import (
    CONFINED,
    Delegation,
    delegations,
    granted_to,
    names,
    of_container,
    unmounted,
)
from ..options.output import FAINT, HEAD, JSON, WARNING, Output, Piece, print_json, styled
from ..options.table import argument

# Seconds between two looks; the kernel doesn't report mounts in other mount namespaces.
_INTERVAL = 2.0
_LONGEST = 86400
_CONFINED = {
    True: "confined: the guard limits what its programs call",
    False: "not confined: programs reach the whole kernel",
    None: "perhaps not confined: without its mount that isn't known",
}
# How many types of a kind a row names; it counts the others.
_NAMED = 3

ABOUT = """
Lists the containers that have a delegation, each with what is delegated, where it is mounted, who
owns it, the rule that granted it, and warnings. With NAME it shows one container in full.
"""
ARGUMENTS = (
    argument(
        "name", nargs="?", metavar="NAME", help="show this container in full, by its name or id"
    ),
    argument(
        *("--watch",),
        nargs="?",
        type=float,
        const=_INTERVAL,
        metavar="SECONDS",
        help="keep running and show what changes, looking every SECONDS (default: 2); if the "
        "output isn't a terminal, a line for each change",
    ),
    argument("--html", metavar="FILE", help="write a page for a security review to FILE"),
    JSON,
)


def run(options: argparse.Namespace) -> int:
    enums = kernel.enums(KINDS)
    if options.watch is not None:
        if options.name or options.html or not 0 <= options.watch <= _LONGEST:
            raise HookError(
                USAGE,
                f"--watch takes 0 to {_LONGEST} seconds, and can't be combined with NAME or --html",
            )
        with suppress(KeyboardInterrupt):
            _watch(options.watch, enums, as_json=options.json)
        return DONE
    if options.name:
        one = containers.find(options.name)
        known = granted_to([one])
        found = list(of_container(one, enums, known))
        found = found or list(unmounted(one, enums, known))
        if not found:
            raise HookError(
                USAGE, f"{quote(options.name)} has no delegation; oci-bpf-hook doctor says why"
            )
    else:
        found = delegations(enums)
    if options.html:
        _write(options.html, found, enums)
    elif options.json:
        print_json([as_json(one) for one in found])
    elif options.name:
        _print_full(found, enums)
    else:
        _print(found, enums)
    return DONE


def as_json(one: Delegation) -> dict[str, Any]:
    """A delegation in the form of schema/inspect.schema.json."""
    container = one.container
    return {
        "container": {
            "name": container.name,
            "id": container.id,
            "engine": container.engine,
            "pid": container.pid,
            "image": container.image,
        },
        "path": one.path or None,
        "delegated": one.shown,
        "owner": one.owner,
        "rule": one.rule,
        "covered": one.covered,
        "confined": one.confined,
        "host_network": one.host_network,
        "host_cgroup": one.host_cgroup,
        "warnings": list(map(str, one.warnings)),
    }


def _print(found: Sequence[Delegation], enums: dict[str, Enum]) -> None:
    out = Output()
    if not found:
        out.line("no container that we may look at has a delegation")
        if os.geteuid():
            out.line(styled(FAINT, "only root sees other users' containers"))
        return
    out.table(
        ("CONTAINER", "ENGINE", "PATH", "OWNER", "RULE", "CONFINED", "DELEGATED", "WARNING"),
        [_cells(one, enums) for one in found],
    )


def _cells(one: Delegation, enums: dict[str, Enum]) -> tuple[Piece, ...]:
    codes = ", ".join(notice.code for notice in one.warnings)
    return (
        styled(HEAD, one.container.label),
        one.container.engine or "?",
        one.path or "?",
        one.owner_name,
        one.rule or "?",
        CONFINED[one.confined],
        _short(one, enums) or "?",
        styled(WARNING, codes) if codes else "",
    )


def _short(one: Delegation, enums: dict[str, Enum]) -> str:
    """The masks as short text: the first names of each kind, and how many more there are."""
    words = []
    for option, mask in one.masks.items():
        text = show(mask, enums[option])
        had = names(mask, enums[option])
        if text != "any" and len(had) > _NAMED:
            text = ":".join([*had[:_NAMED], f"+{len(had) - _NAMED}"])
        words.append(f"{option.removeprefix('delegate_')}={text}")
    return " ".join(words)


def _print_full(found: Sequence[Delegation], enums: dict[str, Enum]) -> None:
    out = Output()
    first = found[0].container
    out.line(styled(HEAD, first.label))
    about = {
        "engine": first.engine,
        "id": first.id,
        "image": first.image,
        "pid": f"{first.pid} ({containers.first_process(first)})",
        "owner": found[0].owner_name,
        "rule": found[0].rule,
        "network": "the host's" if found[0].host_network else "its own",
        "cgroups": "sees the host's" if found[0].host_cgroup else "sees its own",
    }
    for key, text in about.items():
        out.line(styled(FAINT, f"  {key:8}"), f" {text or '?'}")
    for one in found:
        out.line(styled(HEAD, f"  {one.path or '?'}"), f" {_CONFINED[one.confined]}")
        for option, mask in one.masks.items():
            out.line(styled(FAINT, f"    {option:16}"), f" {show(mask, enums[option])}")
        for notice in one.warnings:
            out.line("    ", styled(WARNING, "warning"), f" {notice}")


def _write(path: str, found: Sequence[Delegation], enums: dict[str, Enum]) -> None:
    from ...running.page import page

    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    text = page(found, enums, host=os.uname().nodename, time=now)
    try:
        whole.write(path, text.encode("utf-8", "replace"), devices=True)
    except OSError as error:
        raise HookError(USAGE, f"--html {quote(path)}: {error.strerror}") from None


def _watch(interval: float, enums: dict[str, Enum], *, as_json: bool) -> None:
    before: list[Delegation] | None = None
    while True:
        now = delegations(enums)
        if now != before:
            _show_change(before or [], now, enums, json_lines=as_json)
            sys.stdout.flush()
        before = now
        time.sleep(interval)


def _show_change(
    before: Sequence[Delegation],
    now: Sequence[Delegation],
    enums: dict[str, Enum],
    *,
    json_lines: bool,
) -> None:
    if json_lines:
        print(json.dumps([as_json(one) for one in now]))
    elif Output().terminal:
        # Move the cursor home and clear the screen.
        print("\x1b[H\x1b[2J", end="")
        _print(now, enums)
    else:
        for sign, some, others in (("-", before, now), ("+", now, before)):
            for one in some:
                if one not in others:
                    Output().line(
                        f"{sign} {one.container.label} {one.path or '?'} {_short(one, enums)}"
                    )
