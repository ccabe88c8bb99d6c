"""The container half: what a forked child does inside the container's namespaces.

Their owner may be hostile.  So all this needs is imported before the fork; it runs no
other program, stays out of the pid namespace, can't be traced, holds none of the hook's
standard streams, and dies with its parent.  It touches nothing before it is told to, and
takes back what it has done unless it is told to keep it.

It speaks with the host half (`mount`) through one socket:

    (joins, waits)            <--  the mode and the path
    place of the target, fd   -->  a filesystem context for the host to configure
    (attaches the mount)      <--  CREATED
    place of the mount        -->  for the host to read back
    (ends)                    <--  KEEP, or anything else to take it off
"""

import posix
from _signal import SIGKILL
from _socket import SCM_RIGHTS, SOL_SOCKET, socket
from _struct import Struct
from errno import EAGAIN, EINVAL

from . import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .container import Container


CREATED = b"created"
KEEP = b"keep"
PLACED = b"@"
FAILED = b"!"
# The longest message is a path with a few words.
LONGEST = 8192
MODE = Struct("I")
FD = Struct("i")
# A message begins with what it is.  PLACED: a directory's mount's id, whether it is that
# mount's root, uid, gid and mode.
PLACE = Struct("=cQ?III")
# FAILED: errno; then step, reason and file name, with NUL between.
FAILURE = Struct("=ci")

_FLAGS = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
_STICKY = 0o1000
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


class _GoneError(Exception):
    """The host half has ended, or wants nothing more."""


class _Progress:
    """How far it came: `step` for messages, `made` the directories to remove again."""

    __slots__ = ("made", "step")

    def __init__(self) -> None:
        self.step = "start"
        self.made: list[tuple[int, bytes]] = []


def run(sock: socket, container: "Container", root: str, parent: int) -> "NoReturn":
    """Be the container half of `container`, whose root filesystem is at `root`, and end.

    `parent` is the pid of the host half, at the other end of `sock`.
    """
    progress = _Progress()
    try:
        root_fd = _join(container, root, parent, progress)
        _attach(sock, root_fd, progress)
    except OSError as error:
        _report(sock, progress.step, error)
    except _GoneError:
        pass
    finally:
        _remove(progress.made)
        posix._exit(0)


def _join(container: "Container", root: str, parent: int, progress: _Progress) -> int:
    """Become the container's root in its namespaces; an O_PATH fd on its root filesystem."""
    # runc waits until nobody holds the hook's stdout and stderr any more.
    posix.closerange(0, 3)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    progress.step = "join"
    posix.setgroups([])
    syscalls.setns(container.mount, syscalls.CLONE_NEWNS)
    progress.step = "root"
    # With root's rights still: the way to the root filesystem is root's alone.
    root_fd = _open_root(root)
    progress.step = "user"
    syscalls.setns(container.user, syscalls.CLONE_NEWUSER)
    posix.setresgid(0, 0, 0)
    posix.setresuid(0, 0, 0)
    # A change of credentials resets both.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
    if posix.getppid() != parent:
        raise _GoneError
    return root_fd


def _attach(sock: socket, root: int, progress: _Progress) -> None:
    order = sock.recv(LONGEST)
    if not order:
        raise _GoneError
    (mode,) = MODE.unpack_from(order)
    progress.step = "path"
    target = _open_target(root, order[MODE.size :], progress.made)
    progress.step = "fsopen"
    context = syscalls.fsopen(b"bpf")
    sock.sendmsg([_place(target)], [(SOL_SOCKET, SCM_RIGHTS, FD.pack(context))])
    if sock.recv(LONGEST) != CREATED:
        raise _GoneError
    progress.step = "fsmount"
    mount = _mount(context, mode)
    progress.step = "move_mount"
    syscalls.move_mount(mount, target)
    sock.send(_place(mount))
    # A parent that is gone says nothing, and then nothing must stay.
    if sock.recv(LONGEST) == KEEP:
        progress.made.clear()
    else:
        # "." is the mount itself, whatever has happened to its path since.
        posix.fchdir(mount)
        syscalls.umount2(b".", syscalls.MNT_DETACH)


def _open_root(root: str) -> int:
    path = root.encode("utf-8", "surrogateescape")
    fd = syscalls.openat2(syscalls.AT_FDCWD, path, _DIRECTORY, syscalls.RESOLVE_NO_MAGICLINKS)
    identity, is_root = syscalls.statx_mount(fd)
    # Every runtime binds the root filesystem onto itself before it pivots there.  What is
    # no mount's root isn't it, and "/" is still the host's.
    host = syscalls.openat2(syscalls.AT_FDCWD, b"/", _DIRECTORY, 0)
    if not is_root or identity == syscalls.statx_mount(host)[0]:
        raise OSError(EINVAL, "no runtime has mounted it there", root)
    return fd


def _open_target(root: int, path: bytes, made: list[tuple[int, bytes]]) -> int:
    """The directory at the absolute `path` below `root`; what is missing is made."""
    relative = path[1:]
    try:
        return _resolve(root, relative)
    except FileNotFoundError:
        pass
    posix.umask(0o022)
    directory = root
    for name in relative.split(b"/"):
        try:
            directory = _resolve(directory, name)
        except FileNotFoundError:
            directory = _make(directory, name, made)
    return directory


def _make(directory: int, name: bytes, made: list[tuple[int, bytes]]) -> int:
    try:
        posix.mkdir(name, 0o755, dir_fd=directory)
        made.append((directory, name))
    except FileExistsError:
        pass
    except OSError as error:
        raise OSError(error.errno, f"mkdir: {error.strerror}", name) from None
    return _resolve(directory, name)


def _resolve(directory: int, path: bytes) -> int:
    """An O_PATH fd on `path`, found without any link and never above `directory`."""
    for _ in range(64):
        try:
            return syscalls.openat2(directory, path, _DIRECTORY, _RESOLVE)
        except BlockingIOError:
            # EAGAIN: something was renamed on this host while the kernel looked.
            continue
    raise OSError(EAGAIN, "the path keeps changing", path)


def _mount(context: int, mode: int) -> int:
    mount = syscalls.fsmount(context, _FLAGS)
    if not mode & _STICKY:
        # bpf_fill_super() adds the sticky bit to whatever mode it is given.
        fd = posix.open(b".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=mount)
        posix.fchmod(fd, mode)
        posix.close(fd)
    return mount


def _place(fd: int) -> bytes:
    status = posix.fstat(fd)
    mount, is_root = syscalls.statx_mount(fd)
    return PLACE.pack(PLACED, mount, is_root, status.st_uid, status.st_gid, status.st_mode)


def _remove(made: list[tuple[int, bytes]]) -> None:
    for directory, name in reversed(made):
        try:
            posix.rmdir(name, dir_fd=directory)
        except OSError:  # Somebody has put something there meanwhile: theirs now.
            pass


def _report(sock: socket, step: str, error: OSError) -> None:
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "backslashreplace")
    text = f"{step}\0{error.strerror}\0{name or ''}".encode("utf-8", "backslashreplace")
    try:
        sock.send(FAILURE.pack(FAILED, error.errno or 0) + text)
    except OSError:
        pass
