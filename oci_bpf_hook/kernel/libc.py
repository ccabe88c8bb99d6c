"""libc through ctypes, for system calls that the hook itself doesn't make."""

import ctypes
import os


def load() -> ctypes.CDLL:
    """A libc for one module, which sets argtypes and restype of the functions that it calls."""
    return ctypes.CDLL(None, use_errno=True)


def check(result: int, call: str) -> int:
    """The `result` of the system call named `call`.  Raises OSError if `result` is an error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
