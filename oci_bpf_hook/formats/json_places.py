"""Finds the line and column of each value in a JSON text; `text.strict_json` reads the values.

A list of all pods of a cluster has hundreds of thousands of values, and few of them are asked for.
So a place is looked up when it is asked for, and an object or array is read again only if something
in it is.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate

from ..text.places import Place, Spot, spot_of
from ..text.strict_json import scanner

_BLANK = re.compile(r"[ \t\n\r]*")
# The offsets of a member's key and of its value; an array's item has the same offset twice.
_Children = dict[str | int, tuple[int, int]]


class _Places(Mapping[Place, Spot]):
    """The spots in the valid JSON `text`; with "key" after its path, a member's key has one too."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._scan = scanner(unique=False)
        self._known: dict[Place, _Children] = {}
        # The offset at which each line begins.
        self._lines: list[int] = []

    def __getitem__(self, place: Place) -> Spot:
        at = self._offset(place)
        if not self._lines:
            lengths = (len(line) + 1 for line in self._text.split("\n"))
            self._lines = list(accumulate(lengths, initial=0))
        line = bisect_right(self._lines, at)
        return Spot(line=line, column=at - self._lines[line - 1] + 1)

    def __iter__(self) -> Iterator[Place]:
        left: list[Place] = [()]
        while left:
            place = left.pop()
            yield place
            left += ((*place, key) for key in self._children(place))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _offset(self, place: Place) -> int:
        if not place:
            return self._blank(0)
        *above, last = place
        children = self._children(tuple(above))
        if last in children:
            return children[last][1]
        if last == "key" and above:
            return self._children(tuple(above[:-1]))[above[-1]][0]
        raise KeyError(place)

    def _children(self, place: Place) -> _Children:
        known = self._known.get(place)
        if known is None:
            known = self._known[place] = dict(self._read(self._offset(place)))
        return known

    def _read(self, at: int) -> Iterator[tuple[str | int, tuple[int, int]]]:
        """The keys or indices, with their offsets, of what begins at the offset `at`."""
        opened = self._text[at]
        if opened not in "{[":
            return
        key: object
        number = 0
        at = self._blank(at + 1)
        while self._text[at] not in "}]":
            start, key = at, number
            if opened == "{":
                key, end = self._scan(self._text, at)
                at = self._blank(self._blank(end) + 1)
            assert isinstance(key, str | int)
            yield key, (start, at)
            at = self._blank(self._scan(self._text, at)[1])
            number += 1
            if self._text[at] == ",":
                at = self._blank(at + 1)

    def _blank(self, at: int) -> int:
        """The first offset from `at` on that isn't white space."""
        found = _BLANK.match(self._text, at)
        assert found  # It matches the empty text too.
        return found.end()


def places(text: str) -> Mapping[Place, Spot]:
    """The spot of each value in the valid JSON `text`, by the path to it; none if it is empty."""
    return _Places(text) if text else {}


def spot_of_error(text: str) -> tuple[Spot, str]:
    """The first spot at which `text` isn't JSON, and why."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return spot_of(text, error.pos), error.msg
    except (ValueError, RecursionError):
        pass
    return Spot(line=1, column=1), "it can't be read"
