"""`oci-bpf-hook lint`: what is doubtful about a request that is valid."""

import argparse

from .. import kernel, policycache
from ..errors import DONE, REFUSED
from ..lint import lint
from ..masks import resolve
from ..names import KINDS
from . import request
from .table import argument

ARGUMENTS = (
    *request.ARGUMENTS,
    argument("--strict", action="store_true", help="fail if anything is"),
)


def run(options: argparse.Namespace) -> int:
    asked = request.request(request.annotations(options))
    enums = kernel.enums(KINDS)
    wanted, _ = resolve(asked, enums, kernel.table, policycache.in_force().profiles)
    findings = lint(wanted.masks, enums)
    for finding in findings:
        print(f"{finding.code}: {finding}")
    return REFUSED if findings and options.strict else DONE
