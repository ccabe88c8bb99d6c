"""The command `oci-bpf-hook`: what people run; the hook itself has a launcher of its own.

It finds the command that is called, and turns an error into a line and an exit code; no other
command's module is imported.
"""

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .commands.table import ENTRIES, add
from .errors import DONE, EXITS, USAGE, HookError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: the process's own); its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser(words)
    options = parser.parse_args(words)
    if options.command is None:
        parser.print_help()
        return USAGE
    try:
        code = options.run(options)
        sys.stdout.flush()
    except HookError as error:
        print(f"oci-bpf-hook: {error}", file=sys.stderr)
        return error.code
    except BrokenPipeError:
        # Whoever read our output has seen enough; nor may the interpreter's end complain.
        sys.stdout = None
        return DONE
    assert isinstance(code, int)
    return code


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the whole command, with the options of the one that `words` call."""
    parser = argparse.ArgumentParser(
        prog="oci-bpf-hook",
        description="BPF tokens for OCI containers in user namespaces.",
        epilog="exit codes: " + ", ".join(f"{code} {text}" for code, text in EXITS.items()),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    called = next((word for word in words if not word.startswith("-")), None)
    for one in ENTRIES:
        inner = commands.add_parser(
            one.name, help=one.help, description=one.help, aliases=one.aliases
        )
        if called in (one.name, *one.aliases):
            add(inner, one)
    return parser
