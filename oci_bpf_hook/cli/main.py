"""The command `oci-bpf-hook`, which people run; the hook itself has a launcher of its own.

It runs the command that is called, and turns an error into an exit code and a line for each
problem.  Only the called command's module is imported, and for `--help` none.
"""

import os
import sys

from .. import __version__
from ..errors import BUG, DONE, EXITS, LISTED, USAGE, HookError, bug
from .options.table import ENTRIES, GROUPS, add

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

PROGRAM = "oci-bpf-hook"
SUMMARY = "BPF tokens for OCI containers in user namespaces."
# The width of a terminal that doesn't say it.
_WIDTH = 80
# The exit code that shells give for a program that was interrupted.
_INTERRUPTED = 130


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command with `arguments`, by default the process's own.  Returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    _have_streams()
    for stream in (sys.stdout, sys.stderr):
        # What can't be encoded is shown as an escape, whatever the locale.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(words)
        sys.stdout.flush()
    except HookError as error:
        _complain(error)
        return error.code
    except BrokenPipeError:
        # The reader of our output wants no more of it; the interpreter must not flush the rest.
        sys.stdout = None
        return DONE
    except OSError as error:
        # The output can't be written, or a file disappeared while it was used.
        sys.stdout = None
        where = f"{error.filename}: " if error.filename else ""
        print(f"{PROGRAM}: {where}{error.strerror}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001  A bug too is reported in one line.
        print(f"{PROGRAM}: {bug(error)}", file=sys.stderr)
        return BUG
    return code


def _have_streams() -> None:
    """Open /dev/null for standard output or error if we were started with it closed.

    Otherwise sys.stderr would be None, and print() would write errors to the output instead.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Python closes this at an exec, so a program that we run has its stream closed too.
            setattr(sys, name, open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115


def _complain(error: HookError) -> None:
    """Print a line for each problem; names of files in it can't add lines."""
    from .options.output import printable

    sentences = error.sentences
    rest = len(sentences) - LISTED
    more = (f"and {rest} more",) if rest > 0 else ()
    for sentence in (*sentences[:LISTED], *more):
        print(f"{PROGRAM}: {printable(sentence)}", file=sys.stderr)


def _run(words: "Sequence[str]") -> int:
    # This is most people's first call and has to be fast, so argparse isn't used.
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return DONE if words else USAGE
    if words[0] == "--version":
        print(f"{PROGRAM} {__version__}")
        return DONE
    options = _parser(words).parse_args(words)
    code = options.run(options)
    assert isinstance(code, int)
    return code


def _help() -> str:
    """The text of --help: every command and every exit code, each in a line."""
    width = max(len(one.name) for one in ENTRIES) + 2
    commands: list[str] = []
    for group, about in GROUPS.items():
        commands.append(f"\n{group}: {about}")
        commands += [f"  {one.name:{width}}{one.help}" for one in ENTRIES if one.group == group]
    exits = (f"  {code:<{width}}{text}" for code, text in EXITS.items())
    return "\n".join(
        (
            f"usage: {PROGRAM} COMMAND ...",
            f"\n{SUMMARY}",
            *commands,
            f"\n`{PROGRAM} help COMMAND` says more; see also `man {PROGRAM}-COMMAND`.",
            "\nexit codes:",
            *exits,
        )
    )


def _parser(words: "Sequence[str]") -> "argparse.ArgumentParser":
    """The parser for the command that `words` call, or for all commands if they call none.

    Making a parser for each command would take longer than many a command itself.
    """
    import argparse

    columns = _columns()

    def formatter(prog: str) -> argparse.HelpFormatter:
        # Without a width it imports shutil, whenever an argument is added.
        return argparse.HelpFormatter(prog, width=columns - 2)

    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=SUMMARY,
        epilog=f"`{PROGRAM} --help` lists the exit codes.",
        formatter_class=formatter,
    )
    # The command `help` calls this.
    parser.set_defaults(call=main)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(prog=PROGRAM, dest="command", metavar="COMMAND", required=True)
    called = next((word for word in words if not word.startswith("-")), None)
    found = [one for one in ENTRIES if called in (one.name, *one.aliases)]
    for one in found or ENTRIES:
        inner = commands.add_parser(
            one.name, help=one.help, aliases=one.aliases, formatter_class=formatter
        )
        if found:
            add(inner, one)
    return parser


def _columns() -> int:
    """The width of the terminal, as shutil.get_terminal_size() finds it."""
    try:
        columns = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        columns = 0
    if columns > 0:
        return columns
    try:
        return os.get_terminal_size(1).columns or _WIDTH
    except OSError:
        return _WIDTH
