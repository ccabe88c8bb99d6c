"""Checks whether the guard is in force, and sets the mark by which it knows a confined bpffs.

The guard is a set of BPF LSM programs (`lsm/guard.bpf.c`): it holds each token that is made from a
bpffs whose root directory is marked.  The programs' links are pinned in a directory of root's, so
that they outlive the process that loaded them.  Without the links nothing would be confined, so
they are checked before each confined grant.

The hook imports this module; what loads the guard and reports on it is in `lsm`.
"""

import fcntl
import posix
from _struct import Struct
from errno import ENOENT

from ..kernel import syscalls
from ..paths import GUARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

# The version of the config map's layout; guard.bpf.c has it too.
VERSION = 1
# The links of the programs; each is pinned under its program's name.
LINKS = ("token_create", "token_free", "token_capable", "map_create", "prog_load", "prog")
MARKS = "marks"
TOKENS = "tokens"
CONFIG = "config"

# struct config in guard.bpf.c: the version; masks of program types, of those that take CAP_PERFMON,
# of map types and of capabilities; the offsets of a system call's first two arguments; the ids of
# the programs, and of the maps `marks` and `tokens`; a mask of modes of loads; the lists' digest.
CONFIG_VALUE = Struct("=Ixxxx4QII6I2IIxxxx32s")
KEY = Struct("=I")
# struct bpf_link_info: type, id, prog_id, and for a tracing link its attach_type.
_LINK = Struct("=IIIxxxxI")
_LINK_TRACING = 2
_ATTACHED_TO_LSM = 27
# struct bpf_map_info: type, id.
_MAP = Struct("=II")
_INODE_STORAGE = 28
_CONFINED = KEY.pack(1)
_OPEN = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC

# A token with one of these commands is confined only by the guard: BPF_PROG_LOAD;
# BPF_BTF_GET_FD_BY_ID, which with CAP_SYS_ADMIN in the user namespace opens the BTF of everybody's
# programs; and all commands that are newer than this module.  For map_create and btf_load, the
# other commands that take a token, the masks are enough.
_HELD = 1 << 5 | 1 << 19
_KNOWN = (1 << 39) - 1


class AbsentError(Exception):
    """The guard isn't in force; the text says what is missing, as the end of a sentence."""


def needed(masks: "Mapping[str, int]") -> bool:
    """Whether a confined grant of these `masks` is confined only with the guard in force.

    Without these commands the masks alone confine the token.
    """
    return bool(masks.get("delegate_cmds", 0) & (_HELD | ~_KNOWN))


class Guard:
    """The guard in force, to be used in a `with`; it marks the mounts that it is to hold."""

    __slots__ = ("_directory", "_held", "_marks")

    def __init__(self, marks: int, directory: str = "") -> None:
        """Own `marks`, an fd on the guard's map of marks.

        `directory` is where the guard is pinned, or "" for a guard that isn't pinned yet.
        """
        self._marks = marks
        self._directory = directory
        self._held = -1

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self._marks)
        if self._held >= 0:
            posix.close(self._held)

    def mark(self, root: int) -> None:
        """Have the guard hold each token made from the bpffs with this `root` directory, an fd.

        From then on `guard off` waits for the end of this `with`, or of this process, and sees what
        was granted.  Raises OSError, also if the guard was removed after it was checked.
        """
        if self._directory:
            self._stay()
        syscalls.bpf_map(syscalls.BPF_MAP_UPDATE_ELEM, self._marks, KEY.pack(root), _CONFINED)

    def marked(self, root: int) -> bool:
        """Whether the bpffs with this `root` directory, an fd, is marked.  Raises OSError."""
        try:
            key = KEY.pack(root)
            value = syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, self._marks, key, len(_CONFINED))
        except FileNotFoundError:
            return False
        return value == _CONFINED

    def _stay(self) -> None:
        try:
            if self._held < 0:
                self._held = posix.open(self._directory.rpartition("/")[0], _OPEN)
                fcntl.flock(self._held, fcntl.LOCK_SH | fcntl.LOCK_NB)
            with in_force(self._directory) as now:
                if now._map() != self._map():
                    raise AbsentError("the guard was removed, and another one turned on")
        except AbsentError as error:
            raise OSError(ENOENT, str(error)) from None
        except FileNotFoundError:
            raise OSError(ENOENT, "the guard isn't loaded any more") from None
        except BlockingIOError as error:
            raise OSError(error.errno, "the guard is being removed") from None

    def _map(self) -> tuple[int, int]:
        kind, identity = _MAP.unpack_from(_info(self._marks, _MAP.size))
        return kind, identity


def in_force(directory: str = GUARD) -> Guard:
    """The guard whose links and maps are pinned in `directory`.

    Raises AbsentError if it isn't loaded, is incomplete, or isn't of this version.
    """
    try:
        while True:
            before = posix.lstat(directory).st_ino
            try:
                return _whole(directory)
            except (AbsentError, FileNotFoundError):
                # While a new guard replaces an old one, the paths may lead to either.
                if posix.lstat(directory).st_ino == before:
                    raise
    except FileNotFoundError:
        raise AbsentError("the guard isn't loaded") from None
    except OSError as error:
        raise AbsentError(f"the guard can't be looked at ({error.strerror})") from None


def is_roots(directory: str) -> bool:
    """Whether `directory` is a directory, and not a link to one, that only root may look into.

    Raises OSError.
    """
    status = posix.lstat(directory)
    return not status.st_uid and status.st_mode & 0o170077 == 0o040000


def _whole(directory: str) -> Guard:
    # The owner of the directory above could put another directory in the place of this one.
    for one in (directory.rpartition("/")[0], directory):
        if not is_roots(one):
            raise AbsentError(f"{one} isn't root's own directory")
    fds: list[int] = []
    try:
        names = (*LINKS, CONFIG, MARKS)
        fds.extend(syscalls.bpf_obj_get(f"{directory}/{name}".encode()) for name in names)
        *links, config, marks = fds
        _check(links, config, marks)
        fds.pop()
        return Guard(marks, directory)
    finally:
        for fd in fds:
            posix.close(fd)


def _check(links: list[int], config: int, marks: int) -> None:
    """Raise AbsentError unless these fds are the guard's links and maps, as they were loaded."""
    value = syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, config, KEY.pack(0), CONFIG_VALUE.size)
    version, _, _, _, _, _, _, *ids, _, _ = CONFIG_VALUE.unpack(value)
    if version != VERSION:
        raise AbsentError(
            f"the guard is of another version ({version}, and this program needs {VERSION})"
        )
    for name, link, program in zip(LINKS, links, ids, strict=False):
        kind, _, runs, attached = _LINK.unpack_from(_info(link, _LINK.size))
        if (kind, runs, attached) != (_LINK_TRACING, program, _ATTACHED_TO_LSM):
            raise AbsentError(f"the guard's {name} was replaced")
    if _MAP.unpack_from(_info(marks, _MAP.size)) != (_INODE_STORAGE, ids[len(LINKS)]):
        raise AbsentError(f"the guard's {MARKS} were replaced")


def _info(fd: int, size: int) -> bytes:
    return syscalls.bpf_obj_info(fd).ljust(size, b"\0")
