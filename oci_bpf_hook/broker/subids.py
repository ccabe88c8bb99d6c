"""/etc/subuid in memory, so that the broker can count each connection for the user who made it.

A user can connect with any uid of their ranges in /etc/subuid, so the broker's limits count all
these uids as one.  Owners stay names here: looking up an account can take time, and `broker.peer`
finds out later who asks.
"""

import os
from bisect import bisect_right
from collections.abc import Iterable

from ..users import SUBUID

# A uid that is in no range is counted together with the others of its block.  Containers usually
# get a block of this size.  The uids of the first block are accounts, and each is counted alone.
_BLOCK = 1 << 16


class Ranges:
    """The ranges in the file at `path`, which `refresh` reads again when the file has changed."""

    def __init__(self, path: str = SUBUID) -> None:
        self._path = path
        self._identity: tuple[int, ...] = ()
        # Sorted by the first id.  Each has its first id, its last one, the highest last id of this
        # and all earlier ranges, and its owner.
        self._ranges: list[tuple[int, int, int, str]] = []
        self._firsts: list[int] = []
        self._standing: dict[str, int] = {}

    def refresh(self) -> None:
        """Read the file again if it has changed since it was read."""
        try:
            status = os.stat(self._path)
            identity: tuple[int, ...] = (
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
            )
            if identity == self._identity:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            identity, lines = (), []
        self._identity = identity
        self._take(lines)

    def _take(self, lines: Iterable[str]) -> None:
        self._ranges = _with_highest(sorted(filter(None, map(_range, lines))))
        self._firsts = [first for first, *_ in self._ranges]
        self._standing = {owner: first for first, _, _, owner in reversed(self._ranges)}

    def owner(self, uid: int) -> str | None:
        """The owner of the range that `uid` is in, as the file names it, or None."""
        index = bisect_right(self._firsts, uid) - 1
        while index >= 0:
            _, last, highest, owner = self._ranges[index]
            if uid <= last:
                return owner
            if uid > highest:
                break
            index -= 1  # Ranges may overlap.
        return None

    def group(self, uid: int) -> int:
        """The uid under which the connections by `uid` are counted.

        It is the first of its owner's uids or, if no range holds `uid`, the first of its block.
        """
        owner = self.owner(uid)
        if owner is not None:
            return self._standing[owner]
        return uid if uid < _BLOCK else uid // _BLOCK * _BLOCK


def _range(line: str) -> tuple[int, int, str] | None:
    """The first id, the last and the owner in a line of subuid(5)."""
    owner, _, ids = line.partition(":")
    first, _, count = ids.partition(":")
    if not _is_number(first) or not _is_number(count) or not int(count):
        return None
    return int(first), int(first) + int(count) - 1, owner


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= 10


def _with_highest(ranges: list[tuple[int, int, str]]) -> list[tuple[int, int, int, str]]:
    found: list[tuple[int, int, int, str]] = []
    highest = -1
    for first, last, owner in ranges:
        highest = max(highest, last)
        found.append((first, last, highest, owner))
    return found
