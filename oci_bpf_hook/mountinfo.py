"""/proc/PID/mountinfo, read whole: which mounts a process sees, and which lie over others.

The hook's own read-back looks for one line and doesn't need this.
"""

import re

from .names import KINDS
from .record import Record

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(Record):
    """A line of it: `point` is where, `root` which part of the filesystem, `device` major:minor.

    `options` are the superblock's, in order, with "" for those without a value.
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
        """The `delegate_*` options that it shows, by their names; {} for any other mount."""
        if self.fstype != "bpf":
            return {}
        options = (kind.option for kind in KINDS)
        return {option: self.options[option] for option in options if option in self.options}


def parse(text: str) -> list[Mount]:
    """The mounts in the text of a mountinfo file; lines that aren't whole are left out."""
    found: list[Mount] = []
    # Of what else ends a line for Python nothing is escaped in a path.
    for line in text.split("\n"):
        # ID parent major:minor root point flags [optional]... - type source options
        head, dash, tail = line.partition(" - ")
        fields, rest = head.split(" "), tail.split(" ")
        if not dash or len(fields) < 6 or len(rest) < 3 or not _numbers(*fields[:2]):
            continue
        pairs = (item.partition("=") for item in rest[2].split(","))
        found.append(
            Mount(
                id=int(fields[0]),
                parent=int(fields[1]),
                device=fields[2],
                root=_plain(fields[3]),
                point=_plain(fields[4]),
                fstype=rest[0],
                options={key: value for key, _, value in pairs},
            )
        )
    return found


def _numbers(*texts: str) -> bool:
    return all(text.isascii() and text.isdecimal() for text in texts)


def covered(mounts: list[Mount]) -> set[int]:
    """The ids of those that can't be reached by their path, as another mount lies over it.

    That is one on the very same place, or above it in the tree.  A container has as many mounts
    as it likes, up to the sysctl fs.mount-max, and so nothing here looks at each for each.
    """
    tree = _Tree(mounts)
    return {mount.id for mount in mounts if tree.is_covered(mount)}


class _Tree:
    """The mounts by what they are on, and what is known of each place so far."""

    def __init__(self, mounts: list[Mount]) -> None:
        self._by_id = {mount.id: mount for mount in mounts}
        self._order = {mount.id: number for number, mount in enumerate(mounts)}
        # Those that another lies on the very place of.
        self._below = {mount.parent for mount in mounts if self._is_on_top(mount)}
        # The last one on each place of each mount.
        self._last = {(mount.parent, mount.point): number for number, mount in enumerate(mounts)}
        # Whether what each mount is on can't be reached.
        self._buried: dict[int, bool] = {}

    def is_covered(self, mount: Mount) -> bool:
        return mount.id in self._below or self._shadowed(mount) or self._is_buried(mount)

    def _is_on_top(self, mount: Mount) -> bool:
        """Whether it lies on the very place of its parent."""
        parent = self._by_id.get(mount.parent)
        return parent is not None and parent is not mount and parent.point == mount.point

    def _is_buried(self, mount: Mount) -> bool:
        chain: list[int] = []
        while True:
            parent = self._by_id.get(mount.parent)
            # The tree has no loops, but a file that was read while it changed may.
            if mount.id in self._buried or parent is None or parent is mount:
                found = self._buried.get(mount.id, False)
                break
            chain.append(mount.id)
            self._buried[mount.id] = False
            # What lies on the very place of its parent is what covers that.
            if (parent.id in self._below and not self._is_on_top(mount)) or self._shadowed(parent):
                found = True
                break
            mount = parent
        self._buried.update(dict.fromkeys(chain, found))
        return found

    def _shadowed(self, mount: Mount) -> bool:
        """Whether a later sibling lies on a directory above `mount`."""
        order = self._order[mount.id]
        point = mount.point
        while point:
            point = point.rpartition("/")[0]
            if self._last.get((mount.parent, point or "/"), -1) > order:
                return True
        return False


def _plain(text: str) -> str:
    """A path as the kernel writes it there, with its octal escapes undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
