"""A program in throw-away namespaces, with a delegated bpffs, whose calls of bpf(2) are watched.

The program should behave as it does without us.  So the user namespace maps every id to itself: the
program is root there, files have the same owners, and it lacks only the capabilities of the initial
user namespace.  It keeps all other namespaces, but for a mount namespace for the bpffs, and a
network namespace of its own if that is asked for.

The child that becomes the program speaks with us through one socket until then:

    UNSHARED            -->  we write its id maps, and decide
    (goes on)           <--  MAPPED
    CONTEXT, fd         -->  a filesystem context for us to configure
    (makes the mount)   <--  CREATED
    MOUNTED, id, fd     -->  the mount, for us to mark and to read back
    (installs a filter) <--  WATCH
    WATCHED, fd         -->  where its notifications come from
    (becomes the program, whose end of the socket closes)
    FAILED, words       -->  instead of any of these
"""

import fcntl
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import NoReturn

from ...bpf.names import Enum
from ...delegation.masks import Grant, differences
from ...errors import KERNEL_CANNOT, MOUNT_FAILED, USAGE, HookError, quote
from ...guard.pinned import Guard
from ...kernel import process, syscalls
from ...mount.child import create
from ...mount.failure import not_as_granted
from ...mount.host_half import mark
from . import filter as seccomp
from .syscalls import seccomp_new_listener

UNSHARED, MAPPED, CONTEXT, CREATED = b"u", b"m", b"c", b"n"
MOUNTED, WATCH, WATCHED, FAILED = b"d", b"w", b"l", b"!"
_LONGEST = 4096
_EVERY_ID = "0 0 4294967295\n"
_FLAGS = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
# Python ignores these signals from its start, and the program would inherit that.
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
# The first fd after the standard streams.
_FIRST_FD = 3
# A shell's exit codes for a program that isn't there, and for one that can't be run.
NOT_FOUND, NOT_RUN = 127, 126
_IFREQ = Struct("=16sH22x")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


class Sandbox:
    """The program `command`, prepared step by step; to be used in a `with`."""

    def __init__(
        self, command: Sequence[str], *, private_network: bool, silent: bool = False
    ) -> None:
        """Fork it into its namespaces; if `silent`, without standard streams.  Raises HookError."""
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # We may have been started with SIGCHLD ignored, and then no child can be waited for.
        self._sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.pid = os.fork()
        if self.pid == 0:
            self._sock.close()
            signal.signal(signal.SIGCHLD, self._sigchld)
            _become(theirs, command, private_network=private_network, silent=silent)
        theirs.close()
        self.pidfd = -1
        self._reaped = False
        try:
            self.pidfd = os.pidfd_open(self.pid)
            self._receive(UNSHARED)
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{self.pid}/{name}", "w", encoding="ascii") as file:
                    file.write(_EVERY_ID)
        except OSError as error:
            self._end()
            raise HookError(MOUNT_FAILED, f"the namespaces can't be made: {error}") from None
        except HookError:
            self._end()
            raise

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._sock.close()
        if not self._reaped:
            # A child that waits for us ends by itself.  One that is the program already is killed
            # only if it wasn't waited for, which means that something went wrong here.
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        signal.signal(signal.SIGCHLD, self._sigchld)

    def delegate(self, grant: Grant, enums: Mapping[str, Enum], guard: Guard | None = None) -> None:
        """Mount a bpffs that delegates `grant`, at its path, and have `guard` hold it.

        Raises HookError.
        """
        self._sock.send(MAPPED)
        self._sock.send(grant.path.encode("utf-8", "surrogateescape"))
        _, context = self._receive(CONTEXT)
        create(context, grant)
        os.close(context)
        self._sock.send(CREATED)
        identity, made = self._receive(MOUNTED)
        try:
            # The program, which makes tokens from it, doesn't run yet.
            if guard is not None:
                mark(guard, made)
        finally:
            if made >= 0:
                os.close(made)
        with open(f"/proc/{self.pid}/mountinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file if line.startswith(f"{identity} ")]
        options = lines[0][-1].split(",") if lines else []
        wrong = differences(grant, options, enums)
        if wrong:
            raise not_as_granted(wrong)

    def start(self) -> int:
        """Let the child become the program; returns the fd that its notifications come from.

        Raises HookError (USAGE) if it can't, with the kernel's reason.
        """
        self._sock.send(WATCH)
        _, listener = self._receive(WATCHED)
        try:
            self._receive(b"", end=True)
        except HookError:
            os.close(listener)
            raise
        return listener

    def wait(self) -> int:
        """Reap it; returns its status as waitpid(2) does."""
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        return status

    def _receive(self, kind: bytes, *, end: bool = False) -> tuple[str, int]:
        """The words and the fd, or -1, of the next message, which has to be of that `kind`."""
        message, fds, _, _ = socket.recv_fds(self._sock, _LONGEST, 1)
        fd = fds[0] if fds else -1
        if fd >= 0:
            os.set_inheritable(fd, False)
        text = message[1:].decode("utf-8", "replace")
        if message.startswith(FAILED):
            code, _, sentence = text.partition(" ")
            raise HookError(int(code), sentence)
        if end:
            return "", -1
        if not message.startswith(kind):
            raise HookError(MOUNT_FAILED, "the program's process died before it was ready")
        return text, fd


def _become(
    sock: socket.socket, command: Sequence[str], *, private_network: bool, silent: bool
) -> NoReturn:
    """Be the child: do everything up to the exec, or send why that failed."""
    code = MOUNT_FAILED
    try:
        flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS
        process.unshare(flags | (process.CLONE_NEWNET if private_network else 0))
        sock.send(UNSHARED)
        _expect(sock, MAPPED)
        path = sock.recv(_LONGEST)
        if private_network:
            _loopback_up()
        context = syscalls.fsopen(b"bpf")
        socket.send_fds(sock, [CONTEXT], [context])
        _expect(sock, CREATED)
        _mount(sock, context, path)
        _expect(sock, WATCH)
        code = KERNEL_CANNOT
        listener = seccomp_new_listener(seccomp.program())
        socket.send_fds(sock, [WATCHED], [listener])
        code = USAGE
        if silent:
            # If one of these was closed, another fd of ours may have its number.
            null = fcntl.fcntl(os.open(os.devnull, os.O_RDWR), fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
            sock = socket.socket(fileno=fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD))
            for fd in range(_FIRST_FD):
                os.dup2(null, fd)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], list(command))  # noqa: S606  Running it is what we are for.
    except HookError as error:
        _fail(sock, error.code, str(error))
    except ValueError as error:
        # The name of the program is an empty word.
        _fail(sock, NOT_RUN, f"{quote(command[0])} can't be run: {error}")
    except OSError as error:
        where = f" {quote(os.fsdecode(error.filename))}" if error.filename else ""
        if code == USAGE:
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN
            where = f"{quote(command[0])}"
            _fail(sock, code, f"{where} can't be run: {error.strerror}")
        _fail(sock, code, f"the program can't be made ready: {error.strerror}{where}")
    finally:
        os._exit(NOT_RUN)


def _mount(sock: socket.socket, context: int, path: bytes) -> None:
    directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    made = syscalls.fsmount(context, _FLAGS)
    syscalls.move_mount(made, directory)
    identity, _ = syscalls.statx_mount(made)
    socket.send_fds(sock, [MOUNTED + str(identity).encode()], [made])
    os.close(made)
    os.close(context)


def _expect(sock: socket.socket, kind: bytes) -> None:
    if sock.recv(1) != kind:
        # The parent is gone or has failed, and says so itself.
        os._exit(NOT_RUN)


def _fail(sock: socket.socket, code: int, text: str) -> None:
    try:
        sock.send(FAILED + f"{code} {text}".encode("utf-8", "backslashreplace")[: _LONGEST - 1])
    except OSError:  # Nobody is left to read it.
        pass


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        # struct ifreq: a name of 16 bytes, followed here by the flags.
        flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))
