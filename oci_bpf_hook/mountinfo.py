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

    That is one on the very same place, or above it in the tree.
    """
    by_id = {mount.id: mount for mount in mounts}
    below = {mount.parent for mount in mounts if _covers(mount, by_id.get(mount.parent))}
    return {mount.id for mount in mounts if _is_covered(mount, mounts, by_id, below)}


def _covers(mount: Mount, other: Mount | None) -> bool:
    return other is not None and other is not mount and other.point == mount.point


def _is_covered(
    mount: Mount, mounts: list[Mount], by_id: dict[int, Mount], below: set[int]
) -> bool:
    if mount.id in below or _shadowed(mount, mounts):
        return True
    parent = by_id.get(mount.parent)
    # The tree has no loops, but a file that was read while it changed may.
    for _ in mounts:
        if parent is None or parent is mount:
            return False
        # What lies on the very place of its parent is what covers that.
        if parent.id in below and not _covers(mount, parent):
            return True
        if _shadowed(parent, mounts):
            return True
        mount, parent = parent, by_id.get(parent.parent)
    return False


def _shadowed(mount: Mount, mounts: list[Mount]) -> bool:
    """Whether a later sibling lies on a directory above `mount`."""
    later = False
    for other in mounts:
        if other.id == mount.id:
            later = True
        elif (
            later
            and other.parent == mount.parent
            and mount.point.startswith(f"{other.point.rstrip('/')}/")
        ):
            return True
    return False


def _plain(text: str) -> str:
    """A path as the kernel writes it there, with its octal escapes undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
