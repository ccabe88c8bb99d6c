"""Reads files that must be trusted, after a check of their owner, their kind and their size.

A symbolic link at the end of a path is never followed, and a FIFO or a device that is there instead
of a file doesn't make the reader wait.
"""

import posix

from .errors import BAD_POLICY, HookError, Problem

# The most bytes that are read of /proc/PID/mountinfo.  The sysctl fs.mount-max lets a container's
# root make more, but no engine makes a hundredth of that.
MOUNTINFO_MAX = 16 << 20
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
# The bits of st_mode for a file's kind (inode(7)); importing `stat` would make the hook slower.
_KIND = 0o170000
REGULAR, DIRECTORY, LINK, CHARACTER_DEVICE = 0o100000, 0o040000, 0o120000, 0o020000
FILE = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


def kind_of(status: posix.stat_result) -> int:
    """The kind of the file with this `status`: REGULAR, DIRECTORY, LINK, CHARACTER_DEVICE, ..."""
    return status.st_mode & _KIND


def read_all(fd: int, limit: int | None = None) -> bytes:
    """All that can still be read from `fd`.

    Raises OSError, and ValueError if that is more than `limit` bytes.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := posix.read(fd, 1 << 16):
        size += len(piece)
        if limit is not None and size > limit:
            raise ValueError("too large")
        pieces.append(piece)
    return b"".join(pieces)


def read_file(path: str, limit: int, *, anybodys: bool = False) -> bytes:
    """The content of the regular file at `path`, which belongs to root or to us.

    With `anybodys` the owner doesn't matter: a file in /proc belongs to the process's user.
    Raises OSError, and ValueError if the file is another user's, isn't regular, or is larger than
    `limit` bytes.
    """
    fd = posix.open(path, FILE)
    try:
        status = posix.fstat(fd)
        if kind_of(status) != REGULAR:
            raise ValueError("not a regular file")
        if not anybodys and status.st_uid not in (0, posix.geteuid()):
            raise ValueError("not root's")
        return read_all(fd, limit)
    finally:
        posix.close(fd)


def open_trusted(path: str) -> int:
    """An fd for reading the file at the absolute `path`, which only root can have changed.

    The file and every directory above it belong to root, and nobody else can write them.  Raises
    HookError (BAD_POLICY) if that isn't so, and OSError, also for a link or a missing file.
    """
    directory = posix.open("/", _DIRECTORY)
    *names, last = path.strip("/").split("/")
    try:
        _check(directory, "/", path)
        so_far = ""
        for name in names:
            so_far = f"{so_far}/{name}"
            inner = posix.open(name, _DIRECTORY, dir_fd=directory)
            posix.close(directory)
            directory = inner
            _check(directory, so_far, path)
        fd = posix.open(last, FILE, dir_fd=directory)
    finally:
        posix.close(directory)
    try:
        _check(fd, path, path)
        if kind_of(posix.fstat(fd)) != REGULAR:
            raise HookError(BAD_POLICY, f"{path} isn't a regular file")
    except HookError:
        posix.close(fd)
        raise
    return fd


def _check(fd: int, path: str, what: str) -> None:
    status = posix.fstat(fd)
    if status.st_uid != 0:
        text = f"{path} isn't root's, and so {what} can't be trusted"
        raise HookError(BAD_POLICY, Problem(text, hint=f"chown root: {path}"))
    if status.st_mode & 0o022:
        text = f"others than root can write {path}, and so {what} can't be trusted"
        raise HookError(BAD_POLICY, Problem(text, hint=f"chmod go-w {path}"))
