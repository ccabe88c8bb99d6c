"""The two halves: a delegated bpffs made by the host and attached by the container.

The kernel wants fsopen() from inside the container's user and mount namespaces, and
the delegation set from the initial user namespace (kernel/bpf/inode.c, bpf_fill_super).
So a forked child is the container half (`inside`), and this process the host half:
it starts the child, configures the filesystem context that comes from there, and reads
back what the kernel has made of it.
"""

import posix
from _signal import SIGKILL
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SHUT_WR,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socketpair,
)
from errno import EACCES, EINVAL, ELOOP, ENODEV, ENOSYS, ENOTDIR, EPERM, EROFS
from time import monotonic

from . import inside, syscalls
from .errors import (
    BAD_STATE,
    KERNEL_CANNOT,
    MOUNT_FAILED,
    NO_BROKER,
    NOT_AS_GRANTED,
    HookError,
    quote,
)
from .masks import differences
from .state import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from .container import Container
    from .masks import Grant
    from .names import Enum


# Seconds that the container half may take as a whole.
DEADLINE = inside.DEADLINE
# Seconds for taking back what a container half has left that was killed.
_UNDO_DEADLINE = 0.5

# What the container half's steps take beyond root.
_CAPABILITIES = {
    "setgroups": "CAP_SETGID",
    "join": "CAP_SYS_ADMIN and CAP_SYS_CHROOT",
    "user": "CAP_SYS_ADMIN",
}
_FLAGS = frozenset(("rw", "nosuid", "nodev", "noexec"))


class ContainerHalf:
    """The container half as the host half sees it: a child of ours, to be used in a `with`."""

    def __init__(self, container: "Container", root: str) -> None:
        """Start it: it joins `container`, whose root filesystem is at `root`, and waits."""
        self._container = container
        self._root = root
        self._path = b""
        # What came from inside: the filesystem context, then the mount.
        self._fds: list[int] = []
        # What is there to take back: how many directories of the path, and the mount.
        self._making = 0
        self._kept = False
        self._status = 0
        try:
            self._start(DEADLINE)
        except OSError as error:
            raise HookError(
                MOUNT_FAILED, f"the container half can't be started: {error.strerror}"
            ) from None

    def _start(self, seconds: float, *, undo: bool = False) -> None:
        """Fork the container half, or another one that takes back what the first has left."""
        self._until = monotonic() + seconds
        self._sock, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
        parent = posix.getpid()
        self._pid = posix.fork()
        if self._pid == 0:
            # Held open here too, it would never tell us that our parent has gone.
            posix.close(self._sock.fileno())
            if undo:
                mount = self._fds[1] if len(self._fds) > 1 else -1
                inside.undo(self._container, self._root, parent, mount, self._made())
            inside.run(theirs, self._container, self._root, parent)
        theirs.close()

    def _made(self) -> list[bytes]:
        """The directories that the container half has made or was about to, outermost first."""
        names = self._path[1:].split(b"/")
        ends = range(len(names) - self._making, len(names))
        return [b"/".join(names[: end + 1]) for end in ends]

    def __enter__(self) -> "ContainerHalf":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        """Leave no process and no fd, whatever has happened."""
        self._end()
        while self._fds:
            posix.close(self._fds.pop())

    def mount(self, grant: "Grant", enums: "Mapping[str, Enum]") -> bool:
        """Mount what `grant` says; `enums` are the kernel's names for what is granted.

        It is taken off again unless `keep` is called.  Returns False where just that mount was
        there already, and then changes nothing.
        Raises HookError, with nothing left behind.
        """
        self._path = grant.path.encode("utf-8", "surrogateescape")
        self._send(inside.MODE.pack(grant.mode) + self._path)
        place = self._place()
        if place[1] and not self._wrong(place, grant, enums) and self._owned():
            return False
        _create(self._fds[0], grant)
        self._send(inside.CREATED)
        place = self._place()
        self._receive(inside.ATTACHED)
        wrong = self._wrong(place, grant, enums)
        dead = not self._container.alive()
        if wrong or dead:
            self._end()
        if dead:
            raise HookError(BAD_STATE, "the container's process died while we mounted")
        if wrong:
            raise HookError(
                NOT_AS_GRANTED,
                f"the kernel mounted something else than was granted: {', '.join(wrong)}; "
                "Linux before 6.9 ignores delegation",
            )
        return True

    def keep(self) -> None:
        """Let what `mount` has done stay.  Raises HookError, with nothing left behind."""
        self._send(inside.KEEP)
        self._kept = True

    def _send(self, message: bytes) -> None:
        try:
            self._sock.send(message)
        except OSError:
            # What it said before it went says why.
            self._receive(inside.FAILED)
            raise self._died() from None

    def _owned(self) -> bool:
        """Whether the target belongs to the container's user namespace, as tokens need it."""
        self._send(inside.OWNER)
        _, owned = inside.COUNT.unpack(self._receive(inside.OWNED))
        return bool(owned)

    def _place(self) -> tuple[int, bool, int, int, int]:
        """The place that the child tells next."""
        _, mount, is_root, uid, gid, mode = inside.PLACE.unpack(self._receive(inside.PLACED))
        return mount, is_root, uid, gid, mode

    def _receive(self, kind: bytes) -> bytes:
        """The next message of that kind."""
        while True:
            try:
                message = self._message()
            except TimeoutError:
                raise HookError(
                    MOUNT_FAILED,
                    f"the container half hung: nothing came from it in {DEADLINE} seconds",
                ) from None
            if not message:
                raise self._died()
            if message.startswith(inside.FAILED):
                raise _failure(message)
            if message.startswith(kind):
                return message

    def _message(self) -> bytes:
        """The next message, b"" at the end; takes note of what there is to take back.

        Raises TimeoutError.
        """
        self._sock.settimeout(max(self._until - monotonic(), 0.001))
        try:
            message, ancillary, _, _ = self._sock.recvmsg(
                inside.LONGEST, CMSG_LEN(inside.FD.size), MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            # It has gone and not read our last message.  The kernel tells that once, and
            # then what it said before it went (unix_release_sock, sock_error).
            return self._message()
        for level, kind, data in ancillary:
            if (level, kind, len(data)) == (SOL_SOCKET, SCM_RIGHTS, inside.FD.size):
                self._fds += inside.FD.unpack(data)
        if message.startswith(inside.MAKING):
            _, self._making = inside.COUNT.unpack(message)
        return message

    def _wrong(
        self, place: tuple[int, bool, int, int, int], grant: "Grant", enums: "Mapping[str, Enum]"
    ) -> list[str]:
        """How the mount at `place`, as the kernel shows it, differs from `grant`."""
        identity, is_root, uid, gid, mode = place
        fields: list[str] = []
        for line in self._mountinfo().split("\n"):
            if line.startswith(f"{identity} "):
                fields = line.split(" ")
        if not fields:
            return ["it isn't among the container's mounts"]
        # ID parent major:minor root point flags [optional]... - type source options
        tail = fields[fields.index("-") + 1 :]
        wrong: list[str] = []
        if tail[0] != "bpf" or fields[3] != "/" or not is_root:
            wrong.append(f"it is {quote(fields[3])} of a {quote(tail[0])}")
        if not _FLAGS.issubset(fields[5].split(",")):
            wrong.append(f"its flags are {quote(fields[5])}")
        if (uid, gid) != (0, 0):
            wrong.append(f"it belongs to {uid}:{gid}, not to the container's root")
        if mode & 0o7777 != grant.mode:
            wrong.append(f"its mode is {mode & 0o7777:04o} and should be {grant.mode:04o}")
        return wrong + differences(grant, tail[2].split(","), enums)

    def _mountinfo(self) -> str:
        """The container's mounts, from the host's /proc.

        The child is in the container's mount namespace and ours to reap: until then its
        pid is nobody else's.
        """
        try:
            fd = posix.open(f"/proc/{self._pid}/mountinfo", posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                return read_all(fd).decode("utf-8", "replace")
            finally:
                posix.close(fd)
        except OSError:
            raise self._died() from None

    def _end(self) -> None:
        """Wait until the child has gone; one that hangs is killed.

        It sees that nothing more will come, takes back what it wasn't told to keep, and ends,
        which closes the other end of the socket.  For one that was killed another one does it.
        """
        if not self._pid:
            return
        self._status = self._wait()
        left = self._making or len(self._fds) > 1
        if posix.WIFSIGNALED(self._status) and left and not self._kept:
            try:
                self._start(_UNDO_DEADLINE, undo=True)
            except OSError:  # Nothing more to be done.
                return
            self._wait()

    def _wait(self) -> int:
        """Reap the child, at the deadline by force; its status."""
        try:
            self._sock.shutdown(SHUT_WR)
            while self._message():
                pass
        except OSError:  # Among them TimeoutError.
            pass
        posix.kill(self._pid, SIGKILL)
        _, status = posix.waitpid(self._pid, 0)
        self._pid = 0
        self._sock.close()
        return status

    def _died(self) -> HookError:
        self._end()
        how = f"it left with {posix.WEXITSTATUS(self._status)}"
        if posix.WIFSIGNALED(self._status):
            how = f"killed by signal {posix.WTERMSIG(self._status)}"
        return HookError(MOUNT_FAILED, f"the container half died: {how}")


def settings(grant: "Grant") -> tuple[tuple[str, str], ...]:
    """The mount options that `grant` takes, in the order in which they are set."""
    masks = ((option, f"{mask:#x}") for option, mask in grant.masks.items())
    return (("source", "bpf"), ("mode", f"{grant.mode:o}"), *masks)


def _create(fd: int, grant: "Grant") -> None:
    """Configure the filesystem context `fd` and create its superblock."""
    call = ""
    try:
        for name, value in settings(grant):
            call = f"fsconfig({name})"
            syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, name.encode(), value.encode())
        call = "fsconfig(create)"
        syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE, None, None)
    except OSError as error:
        reason = f"{call}: {posix.strerror(error.errno or 0)}{_context_log(fd)}"
        # To set a mask takes the capability; a kernel that takes masks takes the rest.
        if error.errno == EPERM and call != "fsconfig(create)":
            raise _unprivileged(reason) from None
        if error.errno in (ENOSYS, EINVAL, EPERM):
            raise _kernel(reason) from None
        raise HookError(MOUNT_FAILED, f"the bpffs can't be made: {reason}") from None


def _context_log(fd: int) -> str:
    """What the kernel has to say about a filesystem context, to go behind a sentence."""
    try:
        return f" ({quote(posix.read(fd, 1024).decode('ascii', 'replace').strip())})"
    except OSError:  # ENODATA: nothing.
        return ""


def _failure(message: bytes) -> HookError:
    """The container half's OSError as a sentence for people."""
    _, number = inside.FAILURE.unpack_from(message)
    text = message[inside.FAILURE.size :].decode("utf-8", "backslashreplace")
    step, reason, name = (*text.split("\0"), "", "")[:3]
    where = f" {quote(name)}" if name else ""
    if number == ENOSYS or (number in (EINVAL, ENODEV) and step in ("fsopen", "fsmount")):
        return _kernel(reason)
    if number == EPERM and step in _CAPABILITIES:
        return _unprivileged(reason, _CAPABILITIES[step])
    if step == "root":
        return HookError(
            BAD_STATE, f"the container's root filesystem isn't at{where or ' its place'}: {reason}"
        )
    if step == "path":
        return HookError(MOUNT_FAILED, f"the target directory{where}: {_advice(number, reason)}")
    return HookError(MOUNT_FAILED, f"the container half failed at {step}{where}: {reason}")


def _advice(number: int, reason: str) -> str:
    if number == ELOOP:
        return "it is or goes through a symbolic link, and none is followed; name the directory"
    if number == ENOTDIR:
        return "it is or goes through something that is no directory"
    if number in (EACCES, EPERM, EROFS):
        return (
            f"it is missing and can't be made there ({reason}); make it in the image, or set "
            "io.bpffs.path to a directory that is there"
        )
    return reason


def _kernel(reason: str) -> HookError:
    return HookError(
        KERNEL_CANNOT,
        f"this kernel can't delegate BPF: {reason}; it takes Linux 6.9 or later",
    )


def _unprivileged(reason: str, capability: str = "CAP_SYS_ADMIN") -> HookError:
    return HookError(
        NO_BROKER,
        f"the hook may not delegate BPF ({reason}): that takes {capability} in the initial user "
        "namespace, which the engine's service lacks",
    )
