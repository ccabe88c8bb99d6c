"""Reads what /proc says about a process: credentials, seccomp, environment, mounts, mapped files.

All of it is read through the directory fd of a `namespaces.Process`, so that it is all about the
same process.  What may not be read raises OSError, and the caller decides what that means.
"""

import errno
import os
from collections.abc import Iterator

from ..container.namespaces import Process
from ..files import MOUNTINFO_MAX, read_all
from ..kernel.mountinfo import Keep, Mounts, TooManyError
from ..kernel.mountinfo import read as read_mounts
from ..values import Value

# The most bytes that are read of a file whose length a container decides.
_MOST = 4 << 20
_BLOCK = 1 << 16
# The most bytes and seconds for the mounts of all processes of one owner together, since a
# container can make as many mount namespaces as it likes.
_MOST_OF_ALL = 8 * MOUNTINFO_MAX
_SECONDS = 10.0


class Status(Value):
    """/proc/PID/status, with the ids of our own user namespace, and capabilities as masks."""

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
        """Whether the process has the capability of this number in effect."""
        return bool(self.effective >> capability & 1)


def read(process: Process, name: str, most: int = _MOST) -> str:
    """The file `name` in the process's /proc directory.  Raises OSError."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process.proc)
    try:
        return read_all(fd, most).decode("utf-8", "surrogateescape")
    except ValueError as error:
        raise OSError(errno.EFBIG, f"{name} is {error}") from None
    finally:
        os.close(fd)


def status(process: Process) -> Status:
    """The credentials of `process`.  Raises OSError."""
    return _status(read(process, "status"))


def status_of(pid: int | str) -> Status:
    """The credentials of the process `pid`, or "self".  Raises OSError."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace", newline="\n") as file:
        return _status(file.read())


def _status(text: str) -> Status:
    fields: dict[str, str] = {}
    # splitlines() would also split at characters that a process's name can have; the kernel
    # escapes only "\n".
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
    """Whether all uids of the process are root's; a set-user-id program changes only some of them.

    Raises OSError.
    """
    lines = read(process, "status").split("\n")
    ids = next((line.split()[1:] for line in lines if line.startswith("Uid:")), [])
    return set(ids) == {"0"}


class TooManyMountsError(OSError):
    """The process has more mounts than are read; the strerror says so."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EFBIG, f"it has {what}")


class Patience:
    """Limits how many bytes of mountinfo are read of one mount namespace, and of several together.

    `seconds` is the time that is left for requests to filesystems that may not answer.
    """

    def __init__(self, of_one: int = MOUNTINFO_MAX, of_all: int = _MOST_OF_ALL) -> None:
        self._of_one = of_one
        self._left = of_all
        self.seconds = _SECONDS

    def mounts(self, path: str, directory: int | None, keep: Keep) -> Mounts:
        """The mounts that `keep` selects from the mountinfo file at `path` in the fd `directory`.

        Raises OSError; TooManyMountsError is one.
        """
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            # Most files have no mount to keep, and then building the tree isn't worth its time.
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
                raise TooManyError("more mounts than are read for all of its owner's containers")
            # splitlines() would also split at other characters; in a path only "\n" is escaped.
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
        if rest:
            yield rest


def mounts(process: Process, keep: Keep, patience: Patience | None = None) -> Mounts:
    """The mounts of the process that `keep` selects.  Raises OSError, as Patience.mounts does."""
    return (patience or Patience()).mounts("mountinfo", process.proc, keep)


def started(process: Process) -> float:
    """When the process was started, in seconds since the epoch.  Raises OSError."""
    # The 22nd field; the command's name, in parentheses, may itself have blanks and parentheses.
    ticks = int(read(process, "stat").rpartition(")")[2].split()[19])
    with open("/proc/stat", encoding="ascii") as file:
        boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def environment(process: Process) -> dict[str, str]:
    """The environment that the process was started with.  Raises OSError."""
    items = (item.partition("=") for item in read(process, "environ").split("\0") if item)
    return {key: text for key, _, text in items}


def inside_id(process: Process, kind: str, identity: int) -> int | None:
    """The id in the process's user namespace of our id `identity`, or None.

    `kind` is uid or gid.
    """
    for line in read(process, f"{kind}_map").splitlines():
        inside, outside, count = map(int, line.split())
        if outside <= identity < outside + count:
            return inside + identity - outside
    return None


def libraries(process: Process) -> set[str]:
    """The files that are mapped into the process.  Raises OSError."""
    lines = (line.split(None, 5) for line in read(process, "maps").split("\n"))
    return {fields[5] for fields in lines if len(fields) == 6 and fields[5].startswith("/")}


def pids() -> list[int]:
    """The pids of all processes, in no order."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def comm(pid: int) -> str:
    """The name of the process `pid`.  Raises OSError."""
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\n")
