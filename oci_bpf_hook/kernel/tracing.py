"""ptrace(2), for what only a tracer is told: the seccomp filters of a process.

As in `syscalls`, a wrapper is the call and no more, and no ctypes type leaves the module.
"""

import ctypes
import os
import signal
from errno import ENOENT, ESRCH, ETIMEDOUT
from types import FrameType

from .libc import check, load
from .seccomp import INSTRUCTION

_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_PTRACE_DETACH = 17
_PTRACE_SECCOMP_GET_FILTER = 0x420C
_WALL = 0x40000000
_FILTER_MAX = 4096
_STOP_DEADLINE = 2

_libc = load()
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def seccomp_filters(pid: int) -> list[bytes]:
    """The seccomp filters of the process `pid`, each an array of sock_filter.

    The process stands still for as long as it takes to copy them.  Takes CAP_SYS_ADMIN in the
    initial user namespace and a kernel with CONFIG_CHECKPOINT_RESTORE; raises OSError.
    """
    check(_libc.ptrace(_PTRACE_SEIZE, pid, None, None), "ptrace(SEIZE)")
    passed_on = 0
    try:
        check(_libc.ptrace(_PTRACE_INTERRUPT, pid, None, None), "ptrace(INTERRUPT)")
        passed_on = _wait_for_stop(pid)
        found: list[bytes] = []
        # The newest first, until there is no such one.
        while (program := _filter(pid, len(found))) is not None:
            found.append(program)
        return found
    finally:
        # One that hasn't stopped stays ours until we end, and then is let go too.
        _libc.ptrace(_PTRACE_DETACH, pid, None, passed_on)


def _wait_for_stop(pid: int) -> int:
    """Wait until the process stands still; the signal it is to get when it goes on, 0 for none.

    One in a frozen cgroup, or asleep in the kernel for good, never does.
    """
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(_STOP_DEADLINE)
    try:
        _, status = os.waitpid(pid, _WALL)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if not os.WIFSTOPPED(status):
        raise OSError(ESRCH, "it has ended")
    # A signal that came just then would be lost: it stops for that instead.
    return 0 if status >> 16 else os.WSTOPSIG(status)


def _too_late(number: int, frame: FrameType | None) -> None:
    raise OSError(ETIMEDOUT, f"it didn't stop within {_STOP_DEADLINE} seconds; is it paused?")


def _filter(pid: int, number: int) -> bytes | None:
    buffer = ctypes.create_string_buffer(_FILTER_MAX * INSTRUCTION.size)
    count = _libc.ptrace(_PTRACE_SECCOMP_GET_FILTER, pid, number, buffer)
    if count < 0 and ctypes.get_errno() == ENOENT:
        return None
    return buffer.raw[: check(count, "ptrace(SECCOMP_GET_FILTER)") * INSTRUCTION.size]
