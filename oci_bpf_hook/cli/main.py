"""The command `oci-bpf-hook`: what people run; the hook itself has a launcher of its own.

It finds the command that is called, and turns an error into a line for each problem and an exit
code; no other command's module is imported, and for `--help` none.
"""

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
# What a shell says of a program that was interrupted.
_INTERRUPTED = 130


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the command with `arguments` (default: the process's own); its exit code."""
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
        # Whoever read our output has seen enough; nor may the interpreter's end complain.
        sys.stdout = None
        return DONE
    except OSError as error:
        # Nothing to write on, or a file that went away between two looks at it.
        sys.stdout = None
        where = f"{error.filename}: " if error.filename else ""
        print(f"{PROGRAM}: {where}{error.strerror}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001  The one place: a bug is a line, no traceback.
        print(f"{PROGRAM}: {bug(error)}", file=sys.stderr)
        return BUG
    return code


def _have_streams() -> None:
    """Have something to write on where we were started with a standard stream closed.

    print() takes the output for what is None, and so errors would be in it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed at an exec like all that Python opens: a program that we run has what we had.
            setattr(sys, name, open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115


def _complain(error: HookError) -> None:
    """A line for each problem, whatever names of files are in it."""
    from .options.output import printable

    sentences = error.sentences
    rest = len(sentences) - LISTED
    more = (f"and {rest} more",) if rest > 0 else ()
    for sentence in (*sentences[:LISTED], *more):
        print(f"{PROGRAM}: {printable(sentence)}", file=sys.stderr)


def _run(words: "Sequence[str]") -> int:
    # Most people's first call, and the one that has to be fast: argparse isn't.
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
    """What the command has, a line each."""
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
            f"\n`{PROGRAM} help COMMAND` says more, and `man {PROGRAM}-COMMAND` all.",
            "\nexit codes:",
            *exits,
        )
    )


def _parser(words: "Sequence[str]") -> "argparse.ArgumentParser":
    """The parser of the whole command, with the options of the one that `words` call."""
    import argparse

    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=SUMMARY, epilog=f"`{PROGRAM} --help` lists the exit codes."
    )
    # `help` is another call of the command.
    parser.set_defaults(call=main)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = next((word for word in words if not word.startswith("-")), None)
    for one in ENTRIES:
        inner = commands.add_parser(one.name, help=one.help, aliases=one.aliases)
        if called in (one.name, *one.aliases):
            add(inner, one)
    return parser
