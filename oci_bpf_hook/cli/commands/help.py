"""`oci-bpf-hook help COMMAND` prints the same as `oci-bpf-hook COMMAND --help`."""

import argparse

from ..options.table import argument

ABOUT = """
Prints the help of a command, which is also what COMMAND --help prints. Without a command it prints
the list of all commands and exit codes, as --help alone does.
"""
ARGUMENTS = (
    argument("words", nargs="*", metavar="COMMAND", help="the command, such as policy check"),
)


def run(options: argparse.Namespace) -> int:
    code: int = options.call([*options.words, "--help"])
    return code
