"""Reads the seccomp filters of a process, which the kernel shows only to a tracer (ptrace(2)).

As in `syscalls`, no ctypes type leaves the module.
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

    The process is stopped while they are copied.  That takes CAP_SYS_ADMIN in the initial user
    namespace and a kernel with CONFIG_CHECKPOINT_RESTORE.  Raises OSError.
    """
    check(_libc.ptrace(_PTRACE_SEIZE, pid, None, None), "ptrace(SEIZE)")
    passed_on = 0
    try:
        check(_libc.ptrace(_PTRACE_INTERRUPT, pid, None, None), "ptrace(INTERRUPT)")
        passed_on = _wait_for_stop(pid)
        found: list[bytes] = []
        # The newest filter has the index 0; the first index without a filter ends the list.
        while (program := _filter(pid, len(found))) is not None:
            found.append(program)
        return found
    finally:
        # A process that hasn't stopped can't be detached; the kernel detaches it when we end.
        _libc.ptrace(_PTRACE_DETACH, pid, None, passed_on)


def _wait_for_stop(pid: int) -> int:
    """Wait until the process has stopped, and return the signal to pass on to it then, or 0.

    Raises OSError after a deadline, since a process in a frozen cgroup, or one that sleeps
    uninterruptibly in the kernel, never stops.
    """
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(_STOP_DEADLINE)
    try:
        _, status = os.waitpid(pid, _WALL)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if not os.WIFSTOPPED(status):
        raise OSError(ESRCH, "the process has ended")
    # If a signal arrived first the process has stopped for that signal, which would be lost if it
    # weren't passed on.
    return 0 if status >> 16 else os.WSTOPSIG(status)


def _too_late(number: int, frame: FrameType | None) -> None:
    raise OSError(
        ETIMEDOUT, f"the process didn't stop within {_STOP_DEADLINE} seconds; is it paused?"
    )


def _filter(pid: int, number: int) -> bytes | None:
    buffer = ctypes.create_string_buffer(_FILTER_MAX * INSTRUCTION.size)
    count = _libc.ptrace(_PTRACE_SECCOMP_GET_FILTER, pid, number, buffer)
    if count < 0 and ctypes.get_errno() == ENOENT:
        return None
    return buffer.raw[: check(count, "ptrace(SECCOMP_GET_FILTER)") * INSTRUCTION.size]
