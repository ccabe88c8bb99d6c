"""The container half: what a forked child does inside the container's namespaces.

The owner of these namespaces may be hostile.  So everything that the child needs is imported before
the fork; it runs no other program, stays out of the pid namespace, can't be traced, holds none of
the hook's standard streams, and ends with its parent.  It touches nothing before it is told to, and
undoes what it has done unless it is told to keep it.
"""

# It speaks with the host half (`host_half`) through one socket:
#
#     (joins, waits)            <--  the mode and the path
#     MAKING, if any are        -->  how many directories of the path it makes, and on which mount
#     (makes them)              <--  MAKE, if that isn't the root filesystem's own
#     place of the target, fd   -->  a filesystem context for the host to configure
#     (tries)                   <--  OWNER, if the target is a bpffs just as asked for
#     OWNED, fd                 -->  whether that is of the container's user namespace; the target
#     (makes the mount)         <--  CREATED
#     place of the mount, fd    -->  for the host to mark, and to detach if this half is killed
#     (attaches it)             <--  ATTACH
#     ATTACHED                  -->  for the host to read back
#     (ends)                    <--  KEEP, or anything else to detach the mount
#
# If a broker delegates (`broker.client`), the first fd is a connection to the broker instead.  This
# half makes the connection, since the broker looks at who has connected.  If it sends no fd, there
# is no broker, and the answer to CREATED says why.  The broker's mount comes with CREATED, and if
# it is confined it is marked already.

import posix
from _signal import SIG_DFL, SIGALRM, SIGKILL, alarm, signal
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)
from _struct import Struct
from errno import EAGAIN, EINVAL

from ..kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn, Protocol

    class Container(Protocol):
        """What a child needs to know of where it goes, as of a `namespaces.Container`."""

        from_host: bool
        joins_user: bool
        joins_mount: bool
        user: int
        mount: int
        proc: int


CREATED = b"created"
KEEP = b"keep"
PLACED = b"@"
OWNER = b"owner"
OWNED = b"="
MAKING = b"+"
MAKE = b"make"
ATTACH = b"attach"
ATTACHED = b"."
FAILED = b"!"
# For a running container, whose process has pivoted: the root filesystem is that process's root.
RUNNING = ""
# The most bytes of a message, of which the longest is a path with a few words.
LONGEST = 8192
MODE = Struct("I")
FD = Struct("i")
# The first byte of a message tells its kind.  PLACED is followed by the id of a directory's mount,
# whether the directory is that mount's root, and the directory's uid, gid and mode.
PLACE = Struct("=cQ?III")
# FAILED is followed by errno, and by the step, the reason and the file name, separated by NULs.
FAILURE = Struct("=ci")
# MAKING is followed by the number of directories, and their mount's id (0: the root filesystem's).
MISSING = Struct("=cIQ")
# OWNED is followed by 1 or 0.
COUNT = Struct("=cI")

_FLAGS = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
STICKY = 0o1000
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


class GoneError(Exception):
    """The host half has ended, or wants nothing more."""


class Progress:
    """How far this half came: `step` for messages; `mount` and the directories `made`, to undo."""

    __slots__ = ("made", "mount", "step")

    def __init__(self) -> None:
        self.step = "start"
        self.mount = -1
        self.made: list[tuple[int, bytes]] = []


def receive(sock: socket, longest: int = LONGEST) -> tuple[bytes, int]:
    """The next message, and the fd that came with it, or -1.  The kernel closes further fds."""
    message, ancillary, _, _ = sock.recvmsg(longest, CMSG_LEN(FD.size), MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind, len(data)) == (SOL_SOCKET, SCM_RIGHTS, FD.size):
            return message, int(FD.unpack(data)[0])
    return message, -1


def run(
    sock: socket,
    container: "Container",
    root: str,
    parent: int,
    *,
    seconds: int,
    broker: bytes = b"",
) -> "NoReturn":
    """Be the container half of `container`, whose root filesystem is at `root`, and end.

    `root` is RUNNING for a container that isn't about to start.  `parent` is the pid of the host
    half, at the other end of `sock`.  Once the host half has sent its order, this half takes at
    most `seconds`.  `broker` is the path of the broker's socket if a broker delegates.
    """
    progress = Progress()
    try:
        root_fd = join(container, root, parent, progress)
        _attach(sock, root_fd, order_of(sock, seconds), broker, progress)
    except OSError as error:
        report(sock, progress.step, error)
    except GoneError:
        pass
    finally:
        _take_back(progress)


def undo(
    container: "Container", root: str, parent: int, mount: int, made: "Iterable[bytes]"
) -> "NoReturn":
    """Undo what a killed container half has left, and end.

    `mount` (-1 for none) is detached if it is attached, and those of the directories `made` that
    exist are removed; they are given with the outermost first.
    """
    progress = Progress()
    try:
        root_fd = join(container, root, parent, progress)
        progress.mount = mount
        for path in made:
            above, _, name = path.rpartition(b"/")
            progress.made.append((_resolve(root_fd, above or b"."), name))
    except (OSError, GoneError):
        pass
    finally:
        _take_back(progress)


def join(container: "Container", root: str | None, parent: int, progress: Progress) -> int:
    """Become the container's root in its namespaces; returns an O_PATH fd on its root filesystem.

    Joins only the namespaces that differ: the kernel refuses a process that joins its own user
    namespace again.  Raises OSError, at `progress.step`, and GoneError if `parent` has died.
    """
    # runc waits until the hook's stdout and stderr are closed everywhere.
    posix.closerange(0, 3)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    if container.from_host:
        progress.step = "setgroups"
        posix.setgroups([])
    progress.step = "join"
    if container.joins_mount:
        syscalls.setns(container.mount, syscalls.CLONE_NEWNS)
    progress.step = "root"
    # It is opened while we still are root on the host: only root may walk to the root filesystem.
    root_fd = -1 if root is None else _open_root(container, root)
    progress.step = "user"
    if container.joins_user:
        syscalls.setns(container.user, syscalls.CLONE_NEWUSER)
    progress.step = "ids"
    posix.setresgid(0, 0, 0)
    posix.setresuid(0, 0, 0)
    # A change of credentials resets both.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
    if posix.getppid() != parent:
        raise GoneError
    return root_fd


def order_of(sock: socket, seconds: int) -> bytes:
    """Wait for the host half's order; from then on an alarm ends this half if it hangs."""
    order = sock.recv(LONGEST)
    if not order:
        raise GoneError
    signal(SIGALRM, SIG_DFL)
    alarm(seconds)
    return order


def _attach(sock: socket, root: int, order: bytes, broker: bytes, progress: Progress) -> None:
    # From here on this half has to undo something if its parent dies, so it must not be killed at
    # that moment any more.  It learns of its parent's death from the end of the socket.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
    (mode,) = MODE.unpack_from(order)
    progress.step = "path"
    target = _open_target(sock, root, order[MODE.size :], progress.made)
    progress.step = "broker" if broker else "fsopen"
    opened, failure = _open_source(broker)
    send_place(sock, target, opened)
    answer, mount = receive(sock)
    while answer == OWNER:
        send_fd(sock, COUNT.pack(OWNED, _owned(target)), target)
        answer, mount = receive(sock)
    if answer != CREATED:
        raise GoneError
    if failure:
        raise failure
    progress.step = "fsmount"
    if not broker:
        mount = make_mount(opened, mode)
    send_place(sock, mount, mount)
    # Before this, nothing in the container sees the mount, so nothing can make a token of it.
    if sock.recv(LONGEST) != ATTACH:
        raise GoneError
    progress.step = "move_mount"
    progress.mount = mount
    syscalls.move_mount(mount, target)
    sock.send(ATTACHED)
    # A parent that has died sends nothing, and then nothing may stay.
    if sock.recv(LONGEST) == KEEP:
        progress.mount = -1
        progress.made.clear()


def _open_source(broker: bytes) -> tuple[int, OSError | None]:
    """A filesystem context, or a connection to the broker; -1 and the error if that fails."""
    if not broker:
        return syscalls.fsopen(b"bpf"), None
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        sock.connect(broker)
    except OSError as error:
        return -1, OSError(error.errno, f"connect: {error.strerror}", broker)
    return sock.detach(), None


def _open_root(container: "Container", root: str) -> int:
    if root == RUNNING:
        return posix.open("root", _DIRECTORY, dir_fd=container.proc)
    path = root.encode("utf-8", "surrogateescape")
    fd = syscalls.openat2(syscalls.AT_FDCWD, path, _DIRECTORY, syscalls.RESOLVE_NO_MAGICLINKS)
    identity, is_root = syscalls.statx_mount(fd)
    # Every runtime bind-mounts the root filesystem onto itself before it pivots.  So a directory
    # that isn't the root of a mount isn't the root filesystem, and "/" is still the host's.
    host = syscalls.openat2(syscalls.AT_FDCWD, b"/", _DIRECTORY, 0)
    if not is_root or identity == syscalls.statx_mount(host)[0]:
        raise OSError(EINVAL, "no runtime has mounted it there", root)
    return fd


def _open_target(sock: socket, root: int, path: bytes, made: list[tuple[int, bytes]]) -> int:
    """The directory at the absolute `path` below `root`; missing directories are made."""
    relative = path[1:]
    try:
        return _resolve(root, relative)
    except FileNotFoundError:
        pass
    posix.umask(0o022)
    directory, names = root, relative.split(b"/")
    own, _ = syscalls.statx_mount(root)
    for number, name in enumerate(names):
        try:
            directory = _resolve(directory, name)
        except FileNotFoundError:
            if not made:
                mount, _ = syscalls.statx_mount(directory)
                foreign = 0 if mount == own else mount
                sock.send(MISSING.pack(MAKING, len(names) - number, foreign))
                if foreign and sock.recv(LONGEST) != MAKE:
                    raise GoneError from None
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
    """An O_PATH fd on `path`, resolved without following any link and never above `directory`."""
    for _ in range(64):
        try:
            return syscalls.openat2(directory, path, _DIRECTORY, _RESOLVE)
        except BlockingIOError:
            # EAGAIN: something on this host was renamed while the kernel resolved the path.
            continue
    raise OSError(EAGAIN, "the path keeps changing", path)


def _owned(mount: int) -> bool:
    """Whether the bpffs at `mount` belongs to our user namespace, as tokens in it require."""
    # The kernel doesn't tell, but only the owner's root may reconfigure a mount; for a bpffs that
    # changes nothing (Linux: fs/fsopen.c, vfs_cmd_reconfigure; bpf_context_ops has no reconfigure).
    try:
        context = syscalls.fspick(mount)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_RECONFIGURE, None, None)
    except PermissionError:
        return False
    posix.close(context)
    return True


def make_mount(context: int, mode: int) -> int:
    """A mount, attached nowhere, of the created filesystem `context`; `mode` is its root's."""
    mount = syscalls.fsmount(context, _FLAGS)
    if not mode & STICKY:
        # The kernel adds the sticky bit to any mode (Linux: kernel/bpf/inode.c, bpf_fill_super).
        fd = posix.open(b".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=mount)
        posix.fchmod(fd, mode)
        posix.close(fd)
    return mount


def send_place(sock: socket, directory: int, fd: int, kind: bytes = PLACED) -> None:
    """Tell the parent what `directory` is, in a message of this `kind`, and hand it `fd`."""
    status = posix.fstat(directory)
    mount, is_root = syscalls.statx_mount(directory)
    place = PLACE.pack(kind, mount, is_root, status.st_uid, status.st_gid, status.st_mode)
    send_fd(sock, place, fd)


def send_fd(sock: socket, message: bytes, fd: int) -> None:
    """Send the `message`, and `fd` with it unless that is negative."""
    sock.sendmsg([message], [(SOL_SOCKET, SCM_RIGHTS, FD.pack(fd))] if fd >= 0 else [])


def _take_back(progress: Progress) -> "NoReturn":
    try:
        if progress.mount >= 0:
            _detach(progress.mount)
        for directory, name in reversed(progress.made):
            try:
                posix.rmdir(name, dir_fd=directory)
            except OSError:  # Somebody has put something into it meanwhile.
                pass
    finally:
        posix._exit(0)


def _detach(mount: int) -> None:
    try:
        # "." is the mount itself, whatever has happened to its path since.
        posix.fchdir(mount)
        syscalls.umount2(b".", syscalls.MNT_DETACH)
    except OSError:  # It isn't attached.
        pass


def report(sock: socket, step: str, error: OSError) -> None:
    """Tell the other end that `step` has failed, and why."""
    name = error.filename
    if isinstance(name, bytes):
        name = name.decode("utf-8", "backslashreplace")
    text = f"{step}\0{error.strerror}\0{name or ''}".encode("utf-8", "backslashreplace")
    try:
        sock.send(FAILURE.pack(FAILED, error.errno or 0) + text)
    except OSError:
        pass
