"""The half in the engine's mount namespace, which keeps each mount where the engine finds it.

An engine makes a container's mounts from paths in its own mount namespace, and names the
namespaces of a pod by such paths too.  So a child goes there, opens what is named, and attaches
the new bpffs at a path of its own: PODS/ID/bpf, where ID is the container's id.

PODS is a tmpfs that only root may enter, and what is mounted in it doesn't propagate.  If it is
lost, so are the paths in it: then the engine fails to make the container, and doesn't mount an
empty directory in it instead.

    (joins)               <--  OPEN path
    OPENED, fd            -->
                          <--  LOCK
    OPENED, fd            -->  the file whose lock the one plugin of the host holds
                          <--  ATTACH id, fd of the mount
    ATTACHED              -->  for the host half to read back
    (ends)                <--  KEEP, or anything else to detach the mount
                          <--  LIST
    LISTED id, ..., NONE  -->  the containers for which there is a mount
                          <--  REMOVE id
    REMOVED               -->
"""

import fcntl
import posix
from _signal import SIG_DFL, SIGALRM, alarm, signal
from _socket import socket

from ..errors import MOUNT_FAILED, HookError
from ..kernel import syscalls
from ..kernel.process import make_private, mount_tmpfs
from ..mount.child import Half
from ..mount.container_half import (
    ATTACHED,
    KEEP,
    Progress,
    receive,
    report,
    send_fd,
)
from ..oci.state import is_id
from ..paths import PLUGIN_LOCK, PODS, RUN
from ..whole import make_directory
from .engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_OPEN = b"o"
_LOCK = b"l"
_ATTACH = b"a"
_LIST = b"i"
_REMOVE = b"r"
_OPENED = b"O"
_LISTED = b"I"
_NONE = b"N"
_REMOVED = b"R"
_BPFFS = "bpf"
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_READ = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC
_LOCK_FILE = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC
# More mounts than that are never on top of each other.
_STACKED = 8
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS


class _Progress(Progress):
    """How far the child came; `placed` is the container for which a mount is to be taken back."""

    __slots__ = ("placed",)

    def __init__(self) -> None:
        super().__init__()
        self.placed = ""


def path_of(identity: str) -> str:
    """The path at which the engine finds the mount for the container `identity`."""
    return f"{PODS}/{identity}/{_BPFFS}"


class EngineHalf(Half):
    """A child in the mount namespace of `engine`; to be used in a `with`, and it owns all fds.

    It has `seconds` for all that it is to do.
    """

    def __init__(self, engine: Engine, seconds: int = 1) -> None:
        self._engine = engine
        self.seconds = seconds
        self._placed = ""
        super().__init__()

    def _child(self, sock: socket, parent: int) -> "NoReturn":
        _serve(sock, self._engine, self.seconds)

    @property
    def pid(self) -> int:
        """The child's pid; it is in the engine's mount namespace until it is reaped."""
        return self._pid

    def open(self, path: str) -> int:
        """An fd for reading what has this `path` for the engine.  Raises HookError."""
        return self._open(_OPEN + path.encode("utf-8", "surrogateescape"))

    def lock(self) -> int:
        """An fd, for the caller to close, on the file that the plugin locks.  Raises HookError."""
        fd = self._open(_LOCK)
        self._fds.remove(fd)
        return fd

    def _open(self, order: bytes) -> int:
        before = len(self._fds)
        self._send(order)
        self._receive(_OPENED)
        if len(self._fds) != before + 1:
            raise HookError(MOUNT_FAILED, "the engine's half sent no fd")
        return self._fds[-1]

    def attach(self, identity: str, mount: int) -> None:
        """Attach the detached `mount` at path_of(`identity`), until `keep` or else the end."""
        self._placed = identity
        self._send(_ATTACH + identity.encode(), mount)
        self._receive(ATTACHED)

    def keep(self) -> None:
        """Let the attached mount stay.  Raises HookError if that isn't certain."""
        self._send(KEEP)
        self._placed = ""

    def listed(self) -> list[str]:
        """The ids of the containers for which there is a mount."""
        self._send(_LIST)
        found: list[str] = []
        while (message := self._receive(_LISTED, _NONE)) != _NONE:
            found.append(message[1:].decode("utf-8", "surrogateescape"))
        return found

    def remove(self, identity: str) -> None:
        """Detach the mount for the container `identity`, if there is one.

        An `identity` that is no container's id, and so might lead out of PODS, has none.
        """
        if not is_id(identity):
            return
        self._send(_REMOVE + identity.encode("utf-8", "surrogateescape"))
        self._receive(_REMOVED)

    def _end(self) -> None:
        """Wait until the child has gone; another child takes back what a killed one has left."""
        super()._end()
        if self._placed and self._status:
            placed, self._placed = self._placed, ""
            with EngineHalf(self._engine) as other:
                other.remove(placed)


def _serve(sock: socket, engine: Engine, seconds: int) -> "NoReturn":
    """Be the child: do what is ordered until the orders end, and take back what isn't to stay."""
    progress = _Progress()
    try:
        posix.closerange(0, 3)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        signal(SIGALRM, SIG_DFL)
        # Opening a path may hang, and so may waiting for a lock.
        alarm(seconds)
        progress.step = "join"
        if engine.joins_mount:
            syscalls.setns(engine.mount, syscalls.CLONE_NEWNS)
        posix.chdir("/")
        while True:
            message, fd = receive(sock)
            if message == KEEP:
                progress.placed = ""
            if message == KEEP or not message:
                break
            argument = message[1:].decode("utf-8", "surrogateescape")
            _obey(sock, message[:1], argument, fd, progress)
    except OSError as error:
        report(sock, progress.step, error)
    finally:
        try:
            if progress.placed:
                _remove(progress.placed)
        finally:
            posix._exit(0)


def _obey(sock: socket, order: bytes, argument: str, fd: int, progress: _Progress) -> None:
    if order == _OPEN:
        progress.step = "open"
        send_fd(sock, _OPENED, posix.open(argument, _READ))
    elif order == _LOCK:
        progress.step = "lock"
        make_directory(RUN)
        send_fd(sock, _OPENED, posix.open(PLUGIN_LOCK, _LOCK_FILE, 0o600))
    elif order == _ATTACH:
        progress.step = "attach"
        _attach(argument, fd, progress)
        sock.send(ATTACHED)
    elif order == _LIST:
        progress.step = "list"
        for name in _names():
            sock.send(_LISTED + name.encode("utf-8", "surrogateescape"))
        sock.send(_NONE)
    elif order == _REMOVE:
        progress.step = "remove"
        _remove(argument)
        sock.send(_REMOVED)


def _attach(identity: str, mount: int, progress: _Progress) -> None:
    room = _room()
    _remove(identity)
    # From here on something has to be undone, so no alarm may end this.
    alarm(0)
    progress.placed = identity
    posix.mkdir(identity, 0o700, dir_fd=room)
    posix.mkdir(f"{identity}/{_BPFFS}", 0o700, dir_fd=room)
    target = syscalls.openat2(room, f"{identity}/{_BPFFS}".encode(), _DIRECTORY, _RESOLVE)
    syscalls.move_mount(mount, target)


def _room() -> int:
    """An fd on PODS, where a tmpfs is mounted if that isn't so yet."""
    make_directory(RUN)
    above = posix.open(RUN, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    fcntl.flock(above, fcntl.LOCK_EX)
    try:
        try:
            posix.mkdir(PODS, 0o700)
        except FileExistsError:
            pass
        room = posix.open(PODS, _DIRECTORY)
        there = syscalls.statx_mount(room)[1]
        if not there:
            posix.close(room)
            mount_tmpfs(PODS.encode(), 0o700)
            room = posix.open(PODS, _DIRECTORY)
        # Above all nothing is to appear in containers that get /run from the host.  This is done
        # each time, since whoever has mounted the tmpfs may have died before doing it.
        make_private(PODS.encode())
        return room
    finally:
        posix.close(above)


def _names() -> list[str]:
    try:
        return posix.listdir(PODS)
    except FileNotFoundError:
        return []


def _remove(identity: str) -> None:
    """Detach what is mounted for the container `identity`, and remove its directories."""
    path = path_of(identity)
    try:
        for _ in range(_STACKED):
            syscalls.umount2(path.encode("utf-8", "surrogateescape"), syscalls.MNT_DETACH)
    except OSError:  # Nothing is mounted there any more, or there is no such directory.
        pass
    for one in (path, path.rpartition("/")[0]):
        try:
            posix.rmdir(one)
        except FileNotFoundError:
            pass
