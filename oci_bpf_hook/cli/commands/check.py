"""`oci-bpf-hook check` says whether a request would be granted, and what is doubtful about it."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator

from ...delegation.masks import show
from ...errors import EXITS, LISTED
from ...formats.content import Source
from ...policy import decide as policy
from ..options import trial
from ..options.alike import Alike
from ..options.output import FAINT, JSON, OK, PROBLEM, WARNING, Output, Piece, print_json, styled
from ..options.table import argument
from ..options.trials import try_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.output import Ready

ABOUT = """
Tries a request as the hook would, without starting anything: the grammar of the annotations, the
names that the kernel has, the container's user namespace, the policy, and then the linter. All
problems are printed at once, a line each, with file, line and column.

With --file it reads the annotations of every container that the file describes, and also says what
the file lacks, such as a user namespace, the capabilities that the granted types need, or an
annotation in a place where a container gets it.
In a Kubernetes manifest it reads every document, and the pod template of each object that makes
pods. With the engine podman it reads the manifest as podman kube play does. A Quadlet unit is read
with its drop-ins, and with the *.pod or the manifest that it names, if these are beside it. A
template has to be rendered first, such as with `helm template`.

A name that the file doesn't say, such as that of a Deployment's pod, is assumed: check says which
names it has tried, and if a rule matches only some of them, that the answer depends on the name.

The kernel is the running one unless --kernel, --header or --btf names another. The policy is the
one in force unless --policy names another. --attr adds what a rule may match but the file doesn't
say. A confined grant of prog_load needs the guard. Only root can see whether the guard is in force
here; for other users, and for another kernel, check assumes that it is.
"""
ARGUMENTS = (
    *trial.ARGUMENTS,
    argument("--strict", action="store_true", help="fail on a warning too"),
    JSON,
)

_STYLES = {
    trial.PROBLEM: PROBLEM,
    trial.WARNING: WARNING,
    trial.HINT: FAINT,
    trial.NOTE: FAINT,
}


def run(options: argparse.Namespace) -> int:
    collecting = gc.isenabled()
    # What a large file says is all used until the end, and to look for garbage in it again and
    # again would take a fifth of the time.
    gc.disable()
    try:
        return _run(options)
    finally:
        if collecting:
            gc.enable()


def _run(options: argparse.Namespace) -> int:
    given = trial.setting(options)
    askers, source = trial.askers(options, given.engine)
    alike = Alike(source.lines, given.policy.uses, lambda one: try_out(one, given, source.lines))
    trials = tuple(map(alike.trial, askers))
    code = trial.exit_code(trials, strict=options.strict)
    if options.json:
        print_json(
            {
                "file": source.name or None,
                "kernel": given.source.name,
                "code": code,
                "containers": [as_json(one, source) for one in trials],
            }
        )
    else:
        out = Output()
        print_findings(out, source, trials)
        # Containers that are alike share a decision, and then differ only in their names here.
        shown: dict[int, tuple[tuple[Piece, ...], Ready]] = {}
        for one in trials:
            key = id(one.decision) if one.decision and not one.code else 0
            if not key or key not in shown:
                first, *rest = _summary(one)
                shown[key] = first, out.ready(rest)
            first, below = shown[key]
            out.line(f"{one.asker.name}: ", *first)
            out.block(below)
        if not trials:
            out.line(nothing(source))
    return code


def nothing(source: Source) -> str:
    """A line that says what is in a file that describes no container."""
    first, rest = source.others[:LISTED], len(source.others) - LISTED
    more = f" and {rest} more" if rest > 0 else ""
    found = f": it has {', '.join(first)}{more}" if first else ""
    return f"{source.name} describes no container{found}"


def as_json(one: trial.Trial, source: Source) -> dict[str, Any]:
    """The trial in the form of schema/check.schema.json."""
    decision = one.decision
    return {
        "name": one.asker.name,
        "code": one.code,
        "rule": one.rule,
        "granted": _granted(one),
        "confined": decision.confined if decision else None,
        "depends_on": one.depends or None,
        "path": one.request.path if one.request else None,
        "dropped": list(one.dropped),
        "trimmed": list(decision.trimmed) if decision else [],
        "findings": [finding_as_json(finding, source) for finding in one.findings],
    }


def finding_as_json(finding: trial.Finding, source: Source) -> dict[str, Any]:
    """The finding in the form that the schemas describe."""
    file, spot = source.located(finding.spot) if finding.spot else (None, None)
    return {
        "level": finding.level,
        "code": finding.code,
        "lint": finding.lint or None,
        "annotation": finding.key or None,
        "file": file or None,
        "line": spot.line if spot else None,
        "column": spot.column if spot else None,
        "text": finding.text,
    }


def _granted(one: trial.Trial) -> dict[str, str] | None:
    """What is granted, as the kernel shows it; None if nothing is."""
    if one.decision is None or one.code:
        return None
    enums = one.enums
    return {option: show(mask, enums[option]) for option, mask in one.decision.grant.masks.items()}


def print_findings(out: Output, source: Source, trials: tuple[trial.Trial, ...]) -> None:
    """Print a line for each finding; one that all containers of a pod share is printed once."""
    for finding in dict.fromkeys(finding for one in trials for finding in one.findings):
        where = f"{source.place(finding.spot)}: " if finding.spot and source.name else ""
        code = f"{finding.lint}: " if finding.lint else ""
        out.line(where, styled(_STYLES[finding.level], finding.level), f": {code}{finding.text}")


def confinement(decision: policy.Decision) -> Piece:
    """A line that says whether the rule that decided is confined, and what that means."""
    if not decision.confined:
        return styled(WARNING, "unconfined: whoever matches is trusted with the kernel")
    from ...guard.pinned import needed  # This imports _ctypes, which few commands need.

    if needed(decision.grant.masks):
        return "confined: the guard limits what its programs call, and has to be in force"
    return "confined: without prog_load it doesn't need the guard"


def _summary(one: trial.Trial) -> Iterator[tuple[Piece, ...]]:
    """The lines that say what comes of the request; the first of them goes after the name."""
    granted = _granted(one)
    if one.code:
        some = f" for some of the names that the {one.depends} can get" if one.depends else ""
        code = f"{some}, exit code {one.code} ({EXITS[one.code]})"
        yield styled(PROBLEM, "refused"), code
    elif one.request is None or granted is None:
        yield ("asks for nothing",)
    else:
        assert one.decision
        yield styled(OK, "granted"), f" by rule {one.decision.rule} at {one.request.path}"
        yield "  ", confinement(one.decision)
        for option, words in granted.items():
            yield (f"  {option}={words}",)
        for item in one.dropped:
            yield "  ", styled(WARNING, "dropped"), f": {item}"
        for item in one.decision.trimmed:
            yield "  ", styled(WARNING, "trimmed"), f": {item}"
