"""The system calls that a recording needs besides those of `kernel.syscalls`, in the same style.

seccomp(2) and perf_event_open(2) have a number of their own on each architecture; `kernel.arch` has
these numbers, and on an architecture that it lacks nothing can be recorded.
"""

import ctypes
import os
import struct

from ...errors import KERNEL_CANNOT, HookError
from ...kernel.arch import Arch, native
from ...kernel.libc import check, load

_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
# Once we have a notification, only a fatal signal ends its call (Linux: c2aa2dfef243, "seccomp: Add
# wait_killable semantic to seccomp user notifier", 5.19).
_SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
_PERF_FLAG_FD_CLOEXEC = 1 << 3

_libc = load()
_libc.syscall.restype = ctypes.c_long


def machine() -> Arch:
    """The architecture that we run on ourselves.  Raises HookError (KERNEL_CANNOT)."""
    name = os.uname().machine
    found = native(name, struct.calcsize("P") * 8)
    if found is None:
        raise HookError(
            KERNEL_CANNOT,
            f"the system call numbers of {name} aren't known, so nothing can be recorded here; "
            "use a trace of strace instead (--from-strace)",
        )
    return found


def seccomp_new_listener(program: bytes) -> int:
    """Install the filter `program` for this thread; returns the fd of its notifications."""
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions, and where they are.
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    flags = _SECCOMP_FILTER_FLAG_NEW_LISTENER | _SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    number = ctypes.c_long(machine().seccomp)
    mode = ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER)
    return check(_libc.syscall(number, mode, ctypes.c_ulong(flags), fprog), "seccomp")


def perf_event_open(attr: bytes, thread: int) -> int:
    """A counter for one thread, wherever it runs."""
    number = ctypes.c_long(machine().perf_event_open)
    flags = ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC)
    arguments = (ctypes.c_int(thread), ctypes.c_int(-1), ctypes.c_int(-1), flags)
    return check(_libc.syscall(number, attr, *arguments), "perf_event_open")
