"""`oci-bpf-hook lint` warns of what is doubtful about a valid request."""

import argparse
from typing import Any

from ...errors import HookError
from ...formats.content import Source
from ...kernel.releases import running
from ...policy.store import cache
from ..options import policy as policy_options
from ..options import request, trial
from ..options.lacking import Known
from ..options.output import FAINT, JSON, WARNING, Output, print_json, styled
from ..options.table import argument
from ..options.trials import try_out

ABOUT = """
Warns of what is doubtful about a valid request, with the reason and a fix: items that have no
effect or don't suffice, programs that can be loaded but not attached, and what reaches beyond the
container. With --file it also says what the containers in the file lack to use what they ask for,
such as capabilities.

The policy isn't asked, except for the items of its profiles; `check` asks the policy too.
"""
ARGUMENTS = (
    *request.ARGUMENTS,
    trial.FILE,
    policy_options.ENGINE,
    argument("--strict", action="store_true", help="fail on a warning"),
    JSON,
)
# The code of a doubt about the file itself.
_OF_FILE = "file"


def run(options: argparse.Namespace) -> int:
    compiled = cache.in_force()
    given = trial.Setting(
        source=running(),
        here=False,
        judged=False,
        policy=compiled,
        engine=options.engine or compiled.engine,
        attributes={},
        known=Known(),
    )
    askers, source = trial.askers(options, given.engine)
    trials = tuple(try_out(one, given, source.lines) for one in askers)
    _raise_problems(trials, source)
    if options.json:
        doubts = dict.fromkeys(finding for one in trials for finding in one.findings)
        print_json([_as_json(finding, source) for finding in doubts])
    elif source.name:
        from .check import nothing, print_findings

        print_findings(Output(), source, trials)
        if not trials:
            Output().line(nothing(source))
    else:
        out = Output()
        for finding in trials[0].findings:
            style = FAINT if finding.level == trial.HINT else WARNING
            out.line(styled(style, finding.lint), f": {finding.text}")
    return trial.exit_code(trials, strict=options.strict)


def _raise_problems(trials: tuple[trial.Trial, ...], source: Source) -> None:
    """Raise HookError with every problem of every container, and its place in the `source`."""
    code = trial.exit_code(trials)
    found = dict.fromkeys(finding for one in trials for finding in one.findings)
    if code:
        problems = [
            f"{source.place(one.spot)}: {one.text}" if one.spot else one.text
            for one in found
            if one.level == trial.PROBLEM
        ]
        hint = next((one.text for one in found if one.level == trial.HINT and one.code), None)
        raise HookError(code, *problems, hint=hint)


def _as_json(finding: trial.Finding, source: Source) -> dict[str, Any]:
    doubt = finding.doubt
    file, spot = source.located(finding.spot) if finding.spot else (None, None)
    return {
        "code": finding.lint or _OF_FILE,
        "option": doubt.option if doubt and doubt.option else None,
        # A doubt about the file itself is one sentence.
        "reason": doubt.reason if doubt else finding.text,
        "fix": doubt.fix if doubt else "",
        "file": file or None,
        "line": spot.line if spot else None,
        "column": spot.column if spot else None,
    }
