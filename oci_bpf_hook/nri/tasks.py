"""The processes in which the plugin does what takes time, with the deadline of each."""

import os
import selectors
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from ..errors import MOUNT_FAILED, HookError
from .connection import Connection

# What a process is for: to create a container, to begin a session, or only to collect mounts.
CREATES = "creates"
BEGINS = "begins"
COLLECTS = "collects"
# The most processes at a time; no engine has so many requests at once.
_MOST = 256
_TAKEN = 1 << 20


class Task:
    """A process that is to be done at the `deadline`, and serves the call `number` if it `waits`.

    What it says comes through `sock`.  `identity` is the container's id.
    """

    def __init__(
        self,
        kind: str,
        connection: Connection,
        number: int,
        identity: str,
        deadline: float,
    ) -> None:
        self.kind = kind
        self.connection = connection
        self.number = number
        self.identity = identity
        self.deadline = deadline
        self.waits = kind != COLLECTS
        self.pid = 0
        self.sock, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)

    def hear(self) -> bytes | None:
        """What the process has said, b"" if it has ended, or None if it has said nothing."""
        try:
            return self.sock.recv(_TAKEN)
        except BlockingIOError:
            return None
        except OSError:
            return b""


class Tasks:
    """All processes that run, whose sockets are registered with `selector`."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._running: dict[int, Task] = {}
        # Killed and not gone yet: a process that waits for a file system doesn't end before that.
        self._ending: set[int] = set()

    def start(self, task: Task, work: Callable[[socket.socket], object]) -> None:
        """Have a process do the `work` of the `task`.  Raises HookError if none can be made."""
        try:
            if len(self._running) >= _MOST:
                raise HookError(MOUNT_FAILED, "the plugin has too many requests at a time")
            try:
                task.pid = os.fork()
            except OSError as error:
                raise HookError(MOUNT_FAILED, f"the plugin can't fork: {error.strerror}") from None
            if task.pid == 0:
                try:
                    work(task.theirs)
                finally:
                    os._exit(1)
        except HookError:
            task.sock.close()
            raise
        finally:
            task.theirs.close()
        self._running[task.pid] = task
        self._selector.register(task.sock, selectors.EVENT_READ, task)

    def end(self, task: Task) -> None:
        """End the process, of which nothing more is expected."""
        del self._running[task.pid]
        self._selector.unregister(task.sock)
        task.sock.close()
        # Its pid can't be another process's, because it wasn't reaped yet.
        with suppress(ProcessLookupError):
            os.kill(task.pid, signal.SIGKILL)
        self._ending.add(task.pid)
        self.reap()

    def end_all(self, connection: Connection) -> None:
        """End what was begun for this `connection`, but for taking mounts away."""
        for task in list(self._running.values()):
            if task.connection is connection and task.kind != COLLECTS:
                self.end(task)

    def reap(self) -> None:
        """Reap those of the ended processes that have gone."""
        for pid in list(self._ending):
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
            self._ending.discard(pid)

    def running(self) -> bool:
        """Whether any of them isn't done."""
        return bool(self._running)

    def hurry(self, deadline: float) -> None:
        """Have those for which nobody waits be done at the `deadline` at the latest."""
        for task in self._running.values():
            if not task.waits:
                task.deadline = min(task.deadline, deadline)

    def due(self) -> float | None:
        """When the first of them has to be done."""
        return min((task.deadline for task in self._running.values()), default=None)

    def late(self) -> list[Task]:
        """Those that should have been done by now."""
        now = monotonic()
        return [task for task in self._running.values() if task.deadline <= now]
