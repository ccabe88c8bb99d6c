"""`oci-bpf-hook doctor` finds out why BPF doesn't work, on the host or in a container."""

import argparse
from collections.abc import Iterable, Iterator
from itertools import chain

from ...advise.needs import Needs
from ...bpf.names import KINDS
from ...doctor import container, host, objects
from ...doctor.finding import OK, PROBLEM, WARNING, Finding
from ...errors import DONE, FOUND, HookError
from ...kernel import enums as kernel
from ..options import container as container_options
from ..options.output import FAINT, HEAD, JSON, Output, print_json, styled
from ..options.table import argument

ABOUT = """
Checks everything that BPF in a container depends on, and says for each problem what is wrong, why,
and how to fix it. It checks the host, or with --container or --pid one running container.

If a container doesn't run because the hook refused it, doctor says what the audit trail has
about that.
"""
ARGUMENTS = (
    container_options.CONTAINER,
    container_options.PID,
    argument(
        *("--object",),
        action="append",
        default=[],
        metavar="FILE",
        help="also check what this compiled BPF object needs; may be repeated",
    ),
    argument("--quiet", action="store_true", help="leave out what is in order"),
    JSON,
)


def run(options: argparse.Namespace) -> int:
    needs = None
    if options.object:
        # This reads ELF, for which it imports a library that the rest of doctor doesn't need.
        from .advise import needed

        needs = needed(options.object)
    if options.container is None and options.pid is None:
        title, findings = "the host", host.check()
        if needs is not None:
            findings = chain(findings, objects.cautions(needs))
    else:
        title, findings = _of_a_container(options, needs)
    found = _print(title, findings, options) if not options.json else list(findings)
    if options.json:
        print_json({"about": title, "findings": [_as_json(one) for one in found]})
    return FOUND if any(one.state == PROBLEM for one in found) else DONE


def _of_a_container(
    options: argparse.Namespace, needs: Needs | None
) -> tuple[str, Iterator[Finding]]:
    try:
        one = container_options.running(options)
    except HookError:
        # A container that the hook refused doesn't run, and the audit trail says why.
        found = list(container.refused(options.container or ""))
        if not options.container or not found:
            raise
        return options.container, iter(found)
    title = one.label if one.label.startswith("pid ") else f"{one.label}, pid {one.pid}"
    return title, container.check(one, kernel.enums(KINDS), needs)


def _as_json(one: Finding) -> dict[str, str]:
    return {"what": one.what, "state": one.state, "why": one.why, "fix": one.fix}


def _print(title: str, findings: Iterable[Finding], options: argparse.Namespace) -> list[Finding]:
    """Print each finding as it comes.  Returns all of them."""
    out = Output()
    out.line(styled(HEAD, title))
    found = []
    for one in findings:
        found.append(one)
        if one.state == OK and options.quiet:
            continue
        out.line("  ", styled(one.state, f"{one.state:8}"), f" {one.what}: {one.why}")
        if one.fix:
            out.line(styled(FAINT, "           fix: "), one.fix)
    counts = [
        f"{number} {state}{'s' if number > 1 else ''}"
        for state in (PROBLEM, WARNING)
        if (number := sum(one.state == state for one in found))
    ]
    out.line(", ".join(counts) or "nothing is wrong")
    return found
