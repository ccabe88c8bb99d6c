"""Whose subordinate ids are whose, in memory: cheap enough to be asked of every connection.

A user has as many uids as their ranges in /etc/subuid have, and connects by whichever they like,
so what counts connections counts them all as one.  Names stay names here: to ask the host for an
account may take time, and who really asks is found out later (`peer`).
"""

import os
from bisect import bisect_right
from collections.abc import Iterable

from .users import SUBUID

# Ids in no range that is known are taken together by so many, which is what a container gets;
# those below are accounts, and nobody has two.
_BLOCK = 1 << 16


class Ranges:
    """The ranges of the file at `path`, which `refresh` reads again once it is another."""

    def __init__(self, path: str = SUBUID) -> None:
        self._path = path
        self._identity: tuple[int, ...] = ()
        # By their first id: that, the last, the highest last so far, and the owner.
        self._ranges: list[tuple[int, int, int, str]] = []
        self._firsts: list[int] = []
        self._standing: dict[str, int] = {}

    def refresh(self) -> None:
        """Read the file, unless it is the one that was read."""
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
        """Whom the `uid` was given to, as the file names them; None if it is in no range."""
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
        """The id that stands for all among whose connections those by `uid` are counted.

        That is the first of all that were given to its owner, or of those that are taken together.
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
