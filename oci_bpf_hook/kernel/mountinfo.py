"""Reads /proc/PID/mountinfo: which mounts a process sees, and which are covered by others.

A container's root can make as many mounts as the sysctl fs.mount-max allows, in any number of
namespaces, so only the mounts that matter are kept.  The hook doesn't need this module: when it
reads back its mount it looks for one line.
"""

import re
from collections.abc import Callable, Collection, Iterable

from ..bpf.names import KINDS
from ..values import Value

_OCTAL = re.compile(r"\\([0-7]{3})")
# The most mounts to keep of one namespace; no engine makes so many with delegate_* options.
MOST_KEPT = 4096
# What the kernel escapes in a path (Linux: fs/proc_namespace.c, mangle).
_ESCAPED = {char: f"\\{ord(char):03o}" for char in " \t\n\\"}
Keep = Callable[[bytes], bool]


class TooManyError(ValueError):
    """There are more mounts than can be kept, as the text says."""


class Mount(Value):
    """One mount: `point` is the mount point, and `root` the mounted part of the filesystem.

    `device` is major:minor.  `options` are the superblock's, in order; one without a value has "".
    """

    __slots__ = ("device", "fstype", "id", "options", "parent", "point", "root")
    id: int
    parent: int
    device: str
    root: str
    point: str
    fstype: str
    options: dict[str, str]

    @property
    def delegates(self) -> dict[str, str]:
        """The mount's `delegate_*` options, by name; {} if it isn't of a bpffs that has any."""
        if self.fstype != "bpf":
            return {}
        options = (kind.option for kind in KINDS)
        return {option: self.options[option] for option in options if option in self.options}


class Mounts(Value):
    """The mounts that were kept, in order, and the ids of those among them that are covered.

    A covered mount can't be reached by its path, since another mount is on the same place or on a
    directory above it.
    """

    __slots__ = ("covered", "kept")
    kept: list[Mount]
    covered: set[int]


def of_interest(at: str | None = None, devices: Collection[str] = ()) -> Keep:
    """Selects the lines of mounts that have delegate_* options, are `at` a path, or on `devices`.

    Each of `devices` is major:minor.
    """
    place = None if at is None else "".join(_ESCAPED.get(char, char) for char in at)
    point = None if place is None else b" %s " % place.encode("utf-8", "surrogateescape")
    numbers = {device.encode() for device in devices}

    def keep(line: bytes) -> bool:
        if b" - bpf " in line and b"delegate_" in line:
            return True
        if point is not None and point in line:
            return True
        return bool(numbers) and not numbers.isdisjoint(line.split(b" ", 3)[2:3])

    return keep


def read(lines: Iterable[bytes], keep: Keep, *, most: int = MOST_KEPT) -> Mounts:
    """The mounts in the `lines` of a mountinfo file that `keep` selects.

    Incomplete lines are skipped.  Raises TooManyError if there are more than `most`.
    """
    tree = _Tree()
    kept: list[Mount] = []
    for line in lines:
        # ID parent major:minor root point flags [optional]... - type source options
        fields = line.split(b" ", 5)
        if len(fields) < 6 or b" - " not in line or not _numbers(*fields[:2]):
            continue
        tree.add(int(fields[0]), int(fields[1]), fields[4])
        if keep(line) and (mount := _mount(line)):
            if len(kept) == most:
                raise TooManyError(f"more than {most} mounts that delegate")
            kept.append(mount)
    tree.grown()
    return Mounts(kept=kept, covered={one.id for one in kept if tree.is_covered(one.id)})


def _mount(line: bytes) -> Mount | None:
    text = line.decode("utf-8", "surrogateescape")
    head, _, tail = text.partition(" - ")
    fields, rest = head.split(" "), tail.split(" ")
    if len(fields) < 6 or len(rest) < 3:
        return None
    pairs = (item.partition("=") for item in rest[2].split(","))
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2],
        root=plain(fields[3]),
        point=plain(fields[4]),
        fstype=rest[0],
        options={key: value for key, _, value in pairs},
    )


def _numbers(*texts: bytes) -> bool:
    return all(text.isdigit() and len(text) < 20 for text in texts)


class _Tree:
    """The parent and the place of each mount, and what is known of each place so far.

    Nothing here compares every mount with every other.
    """

    def __init__(self) -> None:
        # Each mount's parent, mount point, and position in the file.
        self._mounts: dict[int, tuple[int, bytes, int]] = {}
        # The last mount at each place of each parent.
        self._last: dict[tuple[int, bytes], int] = {}
        # The mounts that have another one mounted at the very same place.
        self._below: set[int] = set()
        # Whether the place of each mount is out of reach.
        self._buried: dict[int, bool] = {}

    def add(self, identity: int, parent: int, point: bytes) -> None:
        number = len(self._mounts)
        self._mounts[identity] = parent, point, number
        self._last[parent, point] = number

    def grown(self) -> None:
        """To be called when all mounts are added, since a parent may come after its children."""
        self._below = {mount[0] for one, mount in self._mounts.items() if self._is_on_top(one)}

    def is_covered(self, one: int) -> bool:
        return one in self._below or self._shadowed(one) or self._is_buried(one)

    def _parent(self, one: int) -> int | None:
        parent = self._mounts[one][0]
        return parent if parent in self._mounts and parent != one else None

    def _is_on_top(self, one: int) -> bool:
        """Whether the mount `one` is mounted on the root of its parent."""
        parent = self._parent(one)
        return parent is not None and self._mounts[parent][1] == self._mounts[one][1]

    def _is_buried(self, one: int) -> bool:
        chain: list[int] = []
        while True:
            parent = self._parent(one)
            # The tree has no loops, but a file that changed while it was read may show some.
            if one in self._buried or parent is None:
                found = self._buried.get(one, False)
                break
            chain.append(one)
            self._buried[one] = False
            # A mount on the root of its parent is what covers the parent, and isn't covered itself.
            if (parent in self._below and not self._is_on_top(one)) or self._shadowed(parent):
                found = True
                break
            one = parent
        self._buried.update(dict.fromkeys(chain, found))
        return found

    def _shadowed(self, one: int) -> bool:
        """Whether a later mount on the same parent is on a directory above the mount `one`."""
        parent, point, number = self._mounts[one]
        while point:
            point = point.rpartition(b"/")[0]
            if self._last.get((parent, point or b"/"), -1) > number:
                return True
        return False


def plain(text: str) -> str:
    """A path from mountinfo with the kernel's octal escapes undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
