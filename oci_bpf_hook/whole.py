"""Writes a file whole or not at all: if writing fails, the old file stays.

Root's tools also write into directories that others can write, such as /tmp or a user's own.  So
the content goes to a new file that we certainly made, which then gets the old file's name.  A link,
a FIFO or another user's file that has one of these names is neither followed nor opened.  A process
that is killed meanwhile leaves a file whose name begins with `.oci-bpf-hook.`.
"""

import posix
from errno import EEXIST, EISDIR, ELOOP, ENOENT, ENXIO

from .files import DIRECTORY, LINK, REGULAR, kind_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType


_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_WRITE = posix.O_WRONLY | posix.O_NOCTTY | posix.O_CLOEXEC
# How many new names to try; nobody can guess so many names of 64 random bits.
_TRIES = 16


class Replacement:
    """A file that takes the place of the one at `path` when a `with` ends without an error.

    The `with` gives an fd to write to; after an error inside it the old file stays.  The new file
    gets `mode` and `owner`, a uid and a gid.  Without `owner` it is ours; without `mode` it gets
    the mode of the file of ours that it replaces, or else what the umask leaves.  With `sync` the
    content is on the disk before the name is.  With `devices` a pipe or a device of ours is written
    to directly, and so is the target of a link that only we can have made, such as /dev/stdout.

    Raises OSError, with `path` as its file name.
    """

    def __init__(
        self,
        path: "str | PathLike[str]",
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        sync: bool = True,
        devices: bool = False,
    ) -> None:
        self._path = posix.fspath(path)
        above, slash, self._name = self._path.rpartition("/")
        self._above = above or slash or "."
        self._new = ""
        self._mode = mode
        self._owner = owner
        self._sync = sync
        self._devices = devices

    def __enter__(self) -> int:
        try:
            self._look()
            try:
                special = self._special()
                self._fd = self._open(special) if special else self._make()
            except OSError:
                posix.close(self._directory)
                raise
        except OSError as error:
            raise self._of(error) from None
        return self._fd

    def _look(self) -> None:
        if self._name in ("", ".", ".."):
            raise IsADirectoryError(EISDIR, posix.strerror(EISDIR))
        self._directory = posix.open(self._above, _DIRECTORY)

    def _open(self, flags: int) -> int:
        return posix.open(self._name, flags, 0o666, dir_fd=self._directory)

    def _make(self) -> int:
        found = self._found()
        if found and kind_of(found) == DIRECTORY:
            raise IsADirectoryError(EISDIR, posix.strerror(EISDIR))
        if self._mode is None:
            self._mode = _usual_mode(found)
        for _ in range(_TRIES):
            new = f".oci-bpf-hook.{posix.urandom(8).hex()}"
            try:
                fd = posix.open(new, _NEW, 0o600, dir_fd=self._directory)
            except FileExistsError:
                continue
            self._new = new
            return fd
        raise FileExistsError(EEXIST, posix.strerror(EEXIST))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        try:
            if kind is None and self._new:
                self._finish()
        except OSError as failure:
            raise self._of(failure) from None
        finally:
            posix.close(self._fd)
            self._leave()
            posix.close(self._directory)

    def _finish(self) -> None:
        """Give the file its owner, mode and content first, and its name last."""
        if self._owner is not None:
            posix.fchown(self._fd, *self._owner)
        assert self._mode is not None  # _make() has set it.
        posix.fchmod(self._fd, self._mode)
        if self._sync:
            posix.fsync(self._fd)
        here = self._directory
        posix.rename(self._new, self._name, src_dir_fd=here, dst_dir_fd=here)
        self._new = ""

    def _found(self) -> "posix.stat_result | None":
        """The status of the file that has the name now, or None."""
        try:
            return posix.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _special(self) -> int:
        """The flags for opening the present file if it is to be written to directly, or else 0."""
        found = self._found() if self._devices else None
        if found is None or kind_of(found) in (REGULAR, DIRECTORY):
            return 0
        ours = (0, posix.geteuid())
        around = posix.fstat(self._directory)
        alone = around.st_uid in ours and not around.st_mode & 0o022
        if kind_of(found) == LINK:
            return _WRITE | posix.O_CREAT | posix.O_TRUNC if alone else 0
        return _WRITE | posix.O_NOFOLLOW if alone or found.st_uid in ours else 0

    def check(self) -> None:
        """Check that the file can be written, for a caller with long work before it.

        It changes nothing.  Raises OSError.
        """
        try:
            self._look()
            special = self._special()
            posix.close(self._directory)
        except OSError as error:
            raise self._of(error) from None
        # A pipe isn't tried, because its reader would take that for an empty file.
        if not special:
            with self:
                self._leave()

    def _leave(self) -> None:
        """Remove the new file, unless it has become the one that stays."""
        if self._new:
            try:
                posix.unlink(self._new, dir_fd=self._directory)
            except OSError:  # It is gone already.
                pass
        self._new = ""

    def _of(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, self._path)


def _usual_mode(found: "posix.stat_result | None") -> int:
    """The default mode for a new file that replaces the file with the status `found`."""
    if found and kind_of(found) == REGULAR and found.st_uid == posix.geteuid():
        return found.st_mode & 0o777
    mask = posix.umask(0o077)
    posix.umask(mask)
    return 0o666 & ~mask


def write(
    path: "str | PathLike[str]",
    content: bytes,
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
    sync: bool = True,
    devices: bool = False,
) -> None:
    """Write `content` to `path` as a Replacement does.  Raises OSError."""
    with Replacement(path, mode=mode, owner=owner, sync=sync, devices=devices) as fd:
        view = memoryview(content)
        while view:
            view = view[posix.write(fd, view) :]


def make_directory(path: str) -> None:
    """Make the directory `path`, which everybody may enter, unless it is there.  Raises OSError."""
    try:
        posix.mkdir(path, 0o755)
        posix.chmod(path, 0o755)  # mkdir(2) has applied the umask.
    except FileExistsError:
        pass


def is_written(path: "str | PathLike[str]", content: bytes, mode: int) -> bool:
    """Whether `path` is already a file of ours with this `content` and `mode`.

    Raises OSError if the file can't be read.
    """
    # Another user's file doesn't count, since its owner could change it later.
    try:
        fd = posix.open(path, _READ)
    except OSError as error:
        if error.errno in (ENOENT, ELOOP, ENXIO):
            return False
        raise
    try:
        status = posix.fstat(fd)
        if (status.st_mode, status.st_uid) != (REGULAR | mode, posix.geteuid()):
            return False
        # One byte more is read, in case the file has grown since.
        return status.st_size == len(content) and posix.read(fd, len(content) + 1) == content
    finally:
        posix.close(fd)
