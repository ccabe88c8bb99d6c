"""Byte code of the installed modules, made by and for the interpreter that the launcher names."""

import subprocess
from pathlib import Path

from ..errors import USAGE, HookError

# The interpreter that the launcher names; what is byte-compiled is for this one.
PYTHON = "/usr/bin/python3"
_NEEDED = "the hook takes python3, 3.11 or later"
# Its version, and if that will do how it marks what is compiled for it.
_ABOUT = """
import sys
print("%d.%d" % sys.version_info[:2], sys.implementation.cache_tag * (sys.version_info >= (3, 11)))
"""


def is_compiled(path: Path) -> bool:
    """Whether each module in `path` has a form compiled for PYTHON that isn't older.

    Raises HookError (USAGE) if that is none for the hook.
    """
    tag = _tag()
    for source in path.rglob("*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
        if not compiled.exists() or compiled.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return False
    return True


def compile_all(path: Path, shown: str) -> None:
    _tag()
    # Whatever SOURCE_DATE_EPOCH is: by hash each start would read the sources as well.
    by_time = ("--invalidation-mode", "timestamp")
    done = _python("-m", "compileall", "-q", "-f", *by_time, "-d", shown, str(path))
    if done.returncode:
        raise HookError(USAGE, f"{PYTHON} can't compile {path}: {done.stdout.strip()}")


def _tag() -> str:
    """How PYTHON marks what is compiled for it.  Raises HookError (USAGE) if it is too old."""
    # An older one could compile it all, and each container that asks would end in a traceback.
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
