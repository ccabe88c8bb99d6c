"""Which names of system calls libseccomp knows on this host: runtimes skip the others in a profile.

The list is in the library, which crun and runc use, and differs from release to release.
"""

import ctypes
from collections.abc import Iterable

_SONAME = "libseccomp.so.2"
# seccomp.h, __NR_SCMP_ERROR: no system call of any architecture has this name.
_UNKNOWN = -1


def unknown(names: Iterable[str]) -> list[str] | None:
    """Those of the `names` that libseccomp doesn't know, each once; None without libseccomp."""
    try:
        library = ctypes.CDLL(_SONAME)
    except OSError:
        return None
    resolve = library.seccomp_syscall_resolve_name
    resolve.argtypes, resolve.restype = [ctypes.c_char_p], ctypes.c_int
    return [name for name in dict.fromkeys(names) if resolve(_bytes(name)) == _UNKNOWN]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "backslashreplace")
