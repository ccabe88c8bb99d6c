"""`oci-bpf-hook hook`: the hook, by the command's name; its launcher is faster."""

import argparse

from ..policy import ENGINES
from .table import argument

ARGUMENTS = (
    argument("--header", metavar="FILE", help="C header with the names, for want of BTF"),
    argument("--engine", choices=ENGINES, help="which engine runs it"),
)


def run(options: argparse.Namespace) -> int:
    from ..hook import main

    arguments = ["--header", options.header] if options.header else []
    return main([*arguments, "--engine", options.engine] if options.engine else arguments)
