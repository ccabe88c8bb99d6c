"""A tracer: stops the hook and its child in front of each system call, for a test to act there.

From the fork on, unless a test asks for the calls before it, too: those are most of all, Python's
start among them.

What happens at a given moment can then be arranged without a clock: the process waits,
stopped by the kernel, until the test has done what it wants.  No architecture's numbers
are needed; a moment is the n-th call of the hook or of its child.
"""

import ctypes
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from tests.support.policy import keep_compiled
from tests.support.scratch import ENVIRONMENT, LAUNCHER, LIMIT, as_bytes

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS = 0, 7, 24, 0x4200
_GETEVENTMSG, _GET_SYSCALL_INFO = 0x4201, 0x420E
# Mark system calls in the stop's signal, follow a fork, mark a further exec, kill what is traced
# if we end.
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000
_EXEC = 4
_WALL = 0x40000000
_CALL = signal.SIGTRAP | 0x80
_ENTRY = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Call(NamedTuple):
    """A system call that is about to be made: the `nth` of `pid` to be stopped at, from 1 on.

    `hook` is the hook's pid and `child` the container half's, 0 before the fork.  One that
    is forked to take back what that has left is neither.
    """

    pid: int
    nth: int
    number: int
    hook: int
    child: int


class Traced(NamedTuple):
    """How it ended: the hook's `result`, and every call that it was stopped at, in order."""

    result: subprocess.CompletedProcess[str]
    calls: list[Call]


def trace(
    state: str | bytes | Mapping[str, object],
    act: Callable[[Call], None],
    *,
    command: Sequence[str] = (str(LAUNCHER),),
    limit: int = LIMIT,
    early: bool = False,
) -> Traced:
    """Run the launcher with `state`, with `act` called in front of each call of both processes.

    Of the hook's calls those before the fork are left out, but if `early`.
    `command` is another way to run one, without a fork before the hook's own.  Whatever `act`
    raises ends the run, and so does the `limit`, in seconds.
    """
    # Who has to compile the policy forks before the halves, and this follows the first fork.
    keep_compiled()
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(as_bytes(state))
        stdin.seek(0)
        process = subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=ENVIRONMENT,
            process_group=0,
            preexec_fn=lambda: _ptrace(_TRACEME, 0),  # noqa: PLW1509  There are no threads.
        )
        before = signal.signal(signal.SIGALRM, _too_late)
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            calls: list[Call] = []
            process.returncode = _follow(process.pid, act, calls, early=early)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.returncode = -signal.SIGKILL
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read().decode())
    return Traced(subprocess.CompletedProcess([], process.returncode, *texts), calls)


def _follow(hook: int, act: Callable[[Call], None], calls: list[Call], *, early: bool) -> int:
    """Trace the process group `hook` to its end; the hook's exit code, negative for a signal."""
    child = code = 0
    counts: dict[int, int] = {}
    # Those whose first stop is still to come: after the exec, or after the fork.
    begins = {hook}
    while True:
        try:
            pid, status = os.waitpid(-hook, _WALL)
        except ChildProcessError:
            return code
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status) if pid == hook else code
            continue
        deliver = 0
        if pid not in counts:
            counts[pid] = 0
            begins.add(pid)
            _ptrace(_SETOPTIONS, pid, data=_OPTIONS)
        # A signal that was sent meanwhile comes before it, if its number is lower.
        first = signal.SIGTRAP if pid == hook else signal.SIGSTOP
        if pid in begins and os.WSTOPSIG(status) == first:
            begins.discard(pid)
        elif os.WSTOPSIG(status) == _CALL:
            number = _entered(pid)
            if number is not None:
                counts[pid] += 1
                calls.append(Call(pid, counts[pid], number, hook, child))
                act(calls[-1])
        elif status >> 16 == _EXEC:
            pass
        elif status >> 16:  # The notice of a fork, before the hook goes on.
            child = child or _forked(pid)
        else:
            deliver = os.WSTOPSIG(status)
        waits = pid == hook and not child and not early
        _ptrace(_CONT if waits else _SYSCALL, pid, data=deliver)


def _entered(pid: int) -> int | None:
    """The number of the call that `pid` is about to make, None if it comes back from one."""
    # struct ptrace_syscall_info: op in the first byte, the number behind three addresses.
    buffer = ctypes.create_string_buffer(88)
    _ptrace(_GET_SYSCALL_INFO, pid, address=len(buffer), data=ctypes.addressof(buffer))
    if buffer.raw[0] != _ENTRY:
        return None
    return int.from_bytes(buffer.raw[24:32], "little")


def _forked(pid: int) -> int:
    """The child that `pid` has just got."""
    message = ctypes.c_ulong()
    _ptrace(_GETEVENTMSG, pid, data=ctypes.addressof(message))
    return message.value


def _ptrace(request: int, pid: int, *, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        error = OSError(ctypes.get_errno(), f"ptrace({request:#x})")
        if not isinstance(error, ProcessLookupError):  # Killed meanwhile: its end comes next.
            raise error


def _too_late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("the hook took longer than its time limit")


def reaped(pid: int) -> None:
    """Kill `pid`, a child of this process, and wait until it is dead; it stays a zombie."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def inject(*rules: str) -> list[str]:
    """A command to run the hook behind, which has the kernel answer as strace's `rules` say.

    A rule is NAME:error=ENOSYS, or whatever strace's -e inject= takes.
    """
    calls = ",".join(rule.partition(":")[0] for rule in rules)
    tampered = [word for rule in rules for word in ("-e", f"inject={rule}")]
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", *tampered]


def fds(pid: int) -> dict[int, str]:
    """What the file descriptors of `pid` are."""
    directory = Path(f"/proc/{pid}/fd")
    return {int(entry.name): os.readlink(entry) for entry in directory.iterdir()}
