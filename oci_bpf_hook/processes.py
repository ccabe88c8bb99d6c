"""What /proc tells of a process: credentials, seccomp, environment, and what is mapped into it.

All of it is read through the directory fd of a `container.Process`, and so of one process.
What may not be read is an OSError; the caller knows what that means for its question.
"""

import errno
import os
from collections.abc import Iterator

from .container import Process
from .files import MOUNTINFO_MAX, read_all
from .mountinfo import Keep, Mounts, TooManyError
from .mountinfo import read as read_mounts
from .record import Record

# Of a file that a container writes no more than this is read.
_MOST = 4 << 20
_BLOCK = 1 << 16
# Of the mounts of all that belong to one user, or all that are looked at: whoever has a container
# has as many mount namespaces as they like.
_MOST_OF_ALL = 8 * MOUNTINFO_MAX
_SECONDS = 10.0


class Status(Record):
    """/proc/PID/status: ids as this process sees them, capabilities as masks."""

    __slots__ = (
        *("ambient", "bounding", "effective", "inheritable", "permitted"),
        *("gid", "groups", "name", "seccomp", "uid"),
    )
    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int
    seccomp: int

    def has(self, capability: int) -> bool:
        return bool(self.effective >> capability & 1)


def read(process: Process, name: str, most: int = _MOST) -> str:
    """The file `name` of the process's directory.  Raises OSError."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process.proc)
    try:
        return read_all(fd, most).decode("utf-8", "surrogateescape")
    except ValueError as error:
        raise OSError(27, f"{name} is {error}") from None
    finally:
        os.close(fd)


def status(process: Process) -> Status:
    """Its credentials.  Raises OSError."""
    return _status(read(process, "status"))


def status_of(pid: int | str) -> Status:
    """The credentials of the process `pid`, or "self".  Raises OSError."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace", newline="\n") as file:
        return _status(file.read())


def _status(text: str) -> Status:
    fields: dict[str, str] = {}
    # Of what ends a line elsewhere only "\n" is escaped in names, which people choose.
    for line in text.split("\n"):
        key, _, value = line.partition(":")
        fields[key] = value.strip()
    return Status(
        name=fields["Name"],
        uid=int(fields["Uid"].split()[1]),
        gid=int(fields["Gid"].split()[1]),
        groups=tuple(map(int, fields.get("Groups", "").split())),
        effective=int(fields["CapEff"], 16),
        permitted=int(fields["CapPrm"], 16),
        inheritable=int(fields["CapInh"], 16),
        bounding=int(fields["CapBnd"], 16),
        ambient=int(fields.get("CapAmb", "0"), 16),
        seccomp=int(fields.get("Seccomp", "0")),
    )


def is_roots(process: Process) -> bool:
    """Whether each of its user ids is root's: by a set-user-id program only some would be.

    Raises OSError.
    """
    lines = read(process, "status").split("\n")
    ids = next((line.split()[1:] for line in lines if line.startswith("Uid:")), [])
    return set(ids) == {"0"}


class TooManyMountsError(OSError):
    """It can't be looked at, since it has more mounts than are read; its strerror says so."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EFBIG, f"it has {what}")


class Patience:
    """How much is read of mounts, in bytes: of one mount namespace, and of several together.

    `seconds` are left for what may not answer.
    """

    def __init__(self, of_one: int = MOUNTINFO_MAX, of_all: int = _MOST_OF_ALL) -> None:
        self._of_one = of_one
        self._left = of_all
        self.seconds = _SECONDS

    def mounts(self, path: str, directory: int | None, keep: Keep) -> Mounts:
        """What is of interest in the mountinfo file at `path` in the open `directory`.

        Raises OSError, and of these TooManyMountsError.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            # Most have nothing of interest, and of these nothing is remembered.
            if not any(map(keep, self._lines(fd))):
                return Mounts(kept=[], covered=set())
            os.lseek(fd, 0, os.SEEK_SET)
            return read_mounts(self._lines(fd), keep)
        except TooManyError as error:
            raise TooManyMountsError(str(error)) from None
        finally:
            os.close(fd)

    def _lines(self, fd: int) -> Iterator[bytes]:
        size = 0
        rest = b""
        while block := os.read(fd, _BLOCK):
            size += len(block)
            self._left -= len(block)
            if size > self._of_one:
                raise TooManyError(f"more than {self._of_one >> 10} KiB of mounts")
            if self._left < 0:
                raise TooManyError("mounts beside too many others of the same owner's")
            # Of what else ends a line for Python nothing is escaped in a path.
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest


def mounts(process: Process, keep: Keep, patience: Patience | None = None) -> Mounts:
    """The mounts that it sees and that are of interest.  Raises OSError, as Patience.mounts."""
    return (patience or Patience()).mounts("mountinfo", process.proc, keep)


def started(process: Process) -> float:
    """When it was started, in seconds as time.time() has them.  Raises OSError."""
    # The 22nd field; the command's name, in parentheses, may itself have blanks and parentheses.
    ticks = int(read(process, "stat").rpartition(")")[2].split()[19])
    with open("/proc/stat", encoding="ascii") as file:
        boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def environment(process: Process) -> dict[str, str]:
    """The environment that it was started with.  Raises OSError."""
    items = (item.partition("=") for item in read(process, "environ").split("\0") if item)
    return {key: text for key, _, text in items}


def inside_id(process: Process, kind: str, identity: int) -> int | None:
    """The id in the process's user namespace of ours, by its `uid_map` or `gid_map`."""
    for line in read(process, f"{kind}_map").splitlines():
        inside, outside, count = map(int, line.split())
        if outside <= identity < outside + count:
            return inside + identity - outside
    return None


def libraries(process: Process) -> set[str]:
    """The files that are mapped into it.  Raises OSError."""
    lines = (line.split(None, 5) for line in read(process, "maps").split("\n"))
    return {fields[5] for fields in lines if len(fields) == 6 and fields[5].startswith("/")}


def pids() -> list[int]:
    """The processes there are, in no order."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def comm(pid: int) -> str:
    """The name of the process `pid`.  Raises OSError."""
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n")
