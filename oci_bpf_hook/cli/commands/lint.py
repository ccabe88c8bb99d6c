"""`oci-bpf-hook lint` warns of what is doubtful about a valid request."""

import argparse

from ...bpf.names import KINDS
from ...delegation.annotations import Request
from ...delegation.lint import lint
from ...delegation.masks import Grant, resolve
from ...errors import DONE, REFUSED
from ...kernel import enums as kernel
from ...policy.store import cache
from ..options import request
from ..options.output import JSON, WARNING, Output, print_json, styled
from ..options.table import argument

ABOUT = """
Warns of what is doubtful about a valid request, with the reason and a fix: items that have no
effect or don't suffice, what needs more capabilities, and what reaches beyond the container.

The policy isn't asked, except for the items of its profiles; `check` asks the policy too.
"""
ARGUMENTS = (
    *request.ARGUMENTS,
    argument("--strict", action="store_true", help="fail on a warning"),
    JSON,
)


def run(options: argparse.Namespace) -> int:
    enums = kernel.enums(KINDS)

    def resolved(asked: Request) -> Grant:
        return resolve(asked, enums, kernel.table, cache.in_force().profiles)[0]

    wanted = resolved(request.request(request.annotations(options), judge=resolved))
    findings = lint(wanted.masks, enums, confined=True)
    if options.json:
        keys = ("code", "option", "reason", "fix")
        print_json([{key: getattr(finding, key) for key in keys} for finding in findings])
    else:
        out = Output()
        for finding in findings:
            out.line(styled(WARNING, finding.code), f": {finding}")
    return REFUSED if findings and options.strict else DONE
