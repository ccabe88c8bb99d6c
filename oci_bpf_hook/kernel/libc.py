"""libc by ctypes, for the system calls that are off the hot path."""

import ctypes
import os


def load() -> ctypes.CDLL:
    """libc for one module, which sets argtypes and restype of what it calls."""
    return ctypes.CDLL(None, use_errno=True)


def check(result: int, call: str) -> int:
    """The `result` of the system call of that name.  Raises OSError if that is an error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
