"""System calls about our own process and about files: capset(2), unshare(2), mount(2), statx(2).

As in `syscalls`, a wrapper does nothing but the call, and no ctypes type leaves the module.
"""

import ctypes
import os
from struct import Struct

from .libc import check, load

CAP_NET_ADMIN = 12
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
CAP_BPF = 39
# unshare(2)'s flag for a network namespace; `syscalls` has those for user and mount namespaces.
CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
_AT_FDCWD = -100
_MS_PRIVATE = 1 << 18
_RENAME_EXCHANGE = 2
_AT_STATX_DONT_SYNC = 0x4000
_STATX_TYPE = 1
# struct statx: the mode at 28; dev_major and dev_minor at 136.
_STATX = Struct("=28xH106xII112x")

_libc = load()
_libc.unshare.argtypes = [ctypes.c_int]
_libc.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_libc.mount.argtypes = [*[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p]
_libc.statx.argtypes = [
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
]


def stat_known(path: str) -> tuple[int, str]:
    """The type of the file at `path`, as in st_mode, and its device, as in mountinfo.

    The kernel answers from what it has cached, so a filesystem that hangs isn't asked.
    """
    buffer = ctypes.create_string_buffer(_STATX.size)
    name = os.fsencode(path)
    check(_libc.statx(_AT_FDCWD, name, _AT_STATX_DONT_SYNC, _STATX_TYPE, buffer), "statx")
    mode, major, minor = _STATX.unpack(buffer.raw)
    return mode, f"{major}:{minor}"


def unshare(flags: int) -> None:
    """Move this process to new namespaces; `flags` are CLONE_NEW*."""
    check(_libc.unshare(flags), "unshare")


def mount_tmpfs(target: bytes, mode: int = 0o755) -> None:
    """Mount an empty tmpfs, which only root can write to, on the directory `target`."""
    check(_libc.mount(b"tmpfs", target, b"tmpfs", 0, b"mode=%o" % mode), "mount")


def make_private(target: bytes) -> None:
    """Have nothing propagate to or from the mount `target`."""
    check(_libc.mount(None, target, None, _MS_PRIVATE, None), "mount")


def mount_bpffs(target: bytes) -> None:
    """Mount a bpffs that delegates nothing, and is for root alone, on the directory `target`."""
    check(_libc.mount(b"bpf", target, b"bpf", 0, b"mode=0700"), "mount")


def exchange(one: bytes, other: bytes) -> None:
    """Swap the names of two files or directories in one step."""
    there = (ctypes.c_int(_AT_FDCWD), one, ctypes.c_int(_AT_FDCWD), other)
    check(_libc.renameat2(*there, ctypes.c_uint(_RENAME_EXCHANGE)), "renameat2")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets; each argument is a mask with a bit for each capability."""
    header = Struct("=Ii").pack(_CAPABILITY_VERSION_3, 0)
    sets = (effective, permitted, inheritable)
    halves = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in sets]
    check(_libc.capset(header, Struct("=6I").pack(*halves)), "capset")
