"""Compiles the installed modules to byte code, by the interpreter that the launcher names."""

import subprocess
from pathlib import Path

from ..errors import USAGE, HookError

# The interpreter that the launcher names.
PYTHON = "/usr/bin/python3"
_NEEDED = "the hook needs python3, 3.11 or later"
# Prints the version and, if it is 3.11 or later, the tag in the names of .pyc files.
_ABOUT = """
import sys
print("%d.%d" % sys.version_info[:2], sys.implementation.cache_tag * (sys.version_info >= (3, 11)))
"""


def is_compiled(path: Path) -> bool:
    """Whether each module below `path` has byte code for PYTHON that isn't older than its source.

    Raises HookError (USAGE) if PYTHON is missing or too old.
    """
    tag = _tag()
    for source in path.rglob("*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
        if not compiled.exists() or compiled.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return False
    return True


def compile_all(path: Path, shown: str) -> None:
    """Compile each module below `path`, which tracebacks are to show as `shown`.

    Raises HookError (USAGE) if PYTHON is missing or too old, or can't compile them.
    """
    _tag()
    # If SOURCE_DATE_EPOCH is set, compileall by default writes byte code that is checked by the
    # source's hash, and then each start would have to read the sources as well.
    by_time = ("--invalidation-mode", "timestamp")
    done = _python("-m", "compileall", "-q", "-f", *by_time, "-d", shown, str(path))
    if done.returncode:
        raise HookError(USAGE, f"{PYTHON} can't compile {path}: {done.stdout.strip()}")


def _tag() -> str:
    """The tag in the names of PYTHON's .pyc files.  Raises HookError (USAGE) if it is too old."""
    # An older Python might compile everything, but each hook would end in a traceback.
    version, _, tag = _python("-c", _ABOUT).stdout.strip().partition(" ")
    if not tag:
        raise HookError(USAGE, f"{PYTHON} is Python {version or '?'}; {_NEEDED}")
    return tag


def _python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [PYTHON, "-I", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise HookError(USAGE, f"{PYTHON}: {error.strerror}; {_NEEDED}") from None
