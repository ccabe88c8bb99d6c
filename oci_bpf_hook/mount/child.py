"""Starts, talks to and ends a forked child that runs inside a container.

The parent and the child exchange messages through a socket, for a bounded time.  Whatever happens,
no process and no fd is left over.  `container_half` has what the child does, and the subclasses
have what the parent sends.
"""

import posix
from _signal import SIGKILL
from _socket import (
    AF_UNIX,
    SCM_RIGHTS,
    SHUT_WR,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)
from time import monotonic

from ..errors import MOUNT_FAILED, HookError
from ..kernel import syscalls
from . import container_half

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Self

    from ..delegation.masks import Grant


# Seconds that a killed child may take to go.
_KILL_DEADLINE = 0.2


class Half:
    """A child that runs `_child`, to be used in a `with`; `_fds` are the fds that it has sent."""

    # For how many seconds the parent waits for the child in all.
    seconds = 4

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._status = 0
        try:
            self._start(self.seconds)
        except OSError as error:
            raise HookError(
                MOUNT_FAILED, f"the container half can't be started: {error.strerror}"
            ) from None

    def _child(self, sock: socket, parent: int) -> "NoReturn":
        """Do the child's work, with its end of the socket and the pid of its parent, and end."""
        raise NotImplementedError

    def _start(self, seconds: float) -> None:
        self._until = monotonic() + seconds
        self._sock, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        parent = posix.getpid()
        self._pid = posix.fork()
        if self._pid == 0:
            # If the child held this end open too, it would never see that its parent has gone.
            posix.close(self._sock.fileno())
            self._child(theirs, parent)
        theirs.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process and no fd, whatever has happened."""
        self._end()
        while self._fds:
            posix.close(self._fds.pop())

    def _send(self, message: bytes, fd: int = -1) -> None:
        ancillary = [(SOL_SOCKET, SCM_RIGHTS, container_half.FD.pack(fd))] if fd >= 0 else []
        try:
            self._sock.sendmsg([message], ancillary)
        except OSError:
            # If the child sent a message before it ended, that says why.
            self._receive(container_half.FAILED)
            raise self._died() from None

    def _receive(self, *kinds: bytes) -> bytes:
        """The next message of one of the `kinds`; others are passed over.  Raises HookError."""
        while True:
            try:
                message = self._message()
            except TimeoutError:
                raise HookError(
                    MOUNT_FAILED,
                    f"the container half hung: it sent nothing for {self.seconds} seconds",
                ) from None
            if not message:
                raise self._died()
            if message.startswith(container_half.FAILED):
                from .failure import of_message

                raise of_message(message)
            if message.startswith(kinds):
                return message

    def _message(self) -> bytes:
        """The next message, b"" at the end.  Raises TimeoutError."""
        self._sock.settimeout(max(self._until - monotonic(), 0.001))
        try:
            message, fd = container_half.receive(self._sock)
        except ConnectionResetError:
            # The child has ended without reading our last message.  The kernel reports that once,
            # and only then gives the message that the child had sent before (Linux:
            # net/unix/af_unix.c, unix_release_sock; include/net/sock.h, sock_error).
            return self._message()
        if fd >= 0:
            self._fds.append(fd)
        return message

    def _end(self) -> None:
        """Wait until the child has gone; kill it if it hangs."""
        if self._pid:
            self._status = self._wait()

    def _wait(self) -> int:
        """Reap the child, killing it at the deadline; returns its status."""
        try:
            self._sock.shutdown(SHUT_WR)
        except OSError:
            pass
        gone = self._gone()
        posix.kill(self._pid, SIGKILL)
        if not gone:
            self._until = monotonic() + _KILL_DEADLINE
            gone = self._gone()
        # If a file system doesn't answer, the child hangs in the kernel, and SIGKILL ends it only
        # once there is an answer.  It does nothing more then, so we don't wait for it.
        status = posix.waitpid(self._pid, 0)[1] if gone else int(SIGKILL)
        self._pid = 0
        self._sock.close()
        return status

    def _gone(self) -> bool:
        """Whether the child closes its end of the socket in time, which it does when it ends."""
        try:
            while self._message():
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def _died(self) -> HookError:
        self._end()
        how = f"it exited with {posix.WEXITSTATUS(self._status)}"
        if posix.WIFSIGNALED(self._status):
            how = f"killed by signal {posix.WTERMSIG(self._status)}"
        return HookError(MOUNT_FAILED, f"the container half died: {how}")


def settings(grant: "Grant") -> tuple[tuple[str, str], ...]:
    """The mount options that `grant` needs, in the order in which they are set."""
    masks = ((option, f"{mask:#x}") for option, mask in grant.masks.items())
    return (("source", "bpf"), ("mode", f"{grant.mode:o}"), *masks)


def create(fd: int, grant: "Grant") -> None:
    """Configure the filesystem context `fd` as `grant` says, and create its superblock.

    Raises HookError.
    """
    call = ""
    try:
        for name, value in settings(grant):
            call = f"fsconfig({name})"
            syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, name.encode(), value.encode())
        call = "fsconfig(create)"
        syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE, None, None)
    except OSError as error:
        from .failure import of_call

        raise of_call(call, error, fd) from None
