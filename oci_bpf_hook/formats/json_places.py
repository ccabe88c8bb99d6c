"""Reads the documents of a JSON text, with the line and column of each value.

A list of all pods of a cluster has hundreds of thousands of values, and few of them are asked for.
So a place is looked up when it is asked for, and an object or array is read again only if something
in it is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate

from ..text.places import Place, Spot, spot_of
from ..text.strict_json import load_json, scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_BLANK = re.compile(r"[ \t\n\r]*")
# What comes before a member's value or an item, or the end of the object or array.
_MEMBER = re.compile(r'[ \t\n\r,]*(?:"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\n\r]*:[ \t\n\r]*|\})')
_ITEM = re.compile(r"[ \t\n\r,]*(\])?")
# The offsets of a member's key and of its value; an array's item has the same offset twice.
_Children = dict[str | int, tuple[int, int]]


class _Lines:
    """The lines of `text`, found when they are first asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []

    def spot(self, at: int) -> Spot:
        """The spot of the character at the offset `at`."""
        if not self._starts:
            lengths = [len(line) + 1 for line in self._text.split("\n")]
            self._starts = list(accumulate(lengths, initial=0))
        line = bisect_right(self._starts, at)
        return Spot(line=line, column=at - self._starts[line - 1] + 1)


class _Places(Mapping[Place, Spot]):
    """The spots in the document that begins at the offset `start` of the valid JSON `text`.

    With "key" after its path, a member's key has a spot too.
    """

    def __init__(self, text: str, start: int, lines: _Lines) -> None:
        self._text = text
        self._start = start
        self._lines = lines
        self._scan = scanner(unique=False)
        # The place of the object or array in which something was last asked for, and its offset.
        self._above: tuple[Place, int] = ((), start)
        # What is known of each object and array, by the offset at which it begins, and the rest.
        self._known: dict[int, tuple[_Children, Iterator[tuple[str | int, int, int]]]] = {}

    def __getitem__(self, place: Place) -> Spot:
        return self._lines.spot(self._offset(place))

    def __iter__(self) -> Iterator[Place]:
        left: list[Place] = [()]
        while left:
            place = left.pop()
            yield place
            at = self._offset(place)
            self._find(at, None)
            left += ((*place, key) for key in self._known[at][0])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _offset(self, place: Place) -> int:
        if place[:-1] == self._above[0]:
            # Places are mostly asked for one after another.
            found = self._find(self._above[1], place[-1]) if place else None
            if found:
                return found[1]
        at, key_at = self._start, -1
        for number, key in enumerate(place, 1):
            if number == len(place):
                self._above = place[:-1], at
            found = self._find(at, key)
            if found:
                key_at, at = found
            elif key == "key" and number == len(place) and key_at >= 0:
                return key_at
            else:
                raise KeyError(place)
        return at

    def _find(self, at: int, wanted: str | int | None) -> tuple[int, int] | None:
        """The offsets of `wanted` in what begins at the offset `at`, or None if it isn't there.

        What comes after it isn't read: most values that are asked for are among the first.
        """
        if at not in self._known:
            opened = self._text[at]
            read = {"{": self._members, "[": self._items}.get(opened)
            self._known[at] = ({}, read(at + 1) if read else iter(()))
        children, rest = self._known[at]
        if wanted in children:
            return children[wanted]
        for key, start, value in rest:
            children[key] = start, value
            if key == wanted:
                return start, value
        return None

    def _members(self, at: int) -> Iterator[tuple[str | int, int, int]]:
        """The members of the object that begins before the offset `at`."""
        text, scan = self._text, self._scan
        while (member := _MEMBER.match(text, at)) and (key := member[1]) is not None:
            start = member.start(1) - 1
            if "\\" in key:
                key = str(scan(text, start)[0])
            value = member.end()
            yield key, start, value
            at = scan(text, value)[1]

    def _items(self, at: int) -> Iterator[tuple[str | int, int, int]]:
        """The items of the array that begins before the offset `at`."""
        text, scan = self._text, self._scan
        number = 0
        while (item := _ITEM.match(text, at)) and item[1] is None:
            start = item.end()
            yield number, start, start
            number += 1
            at = scan(text, start)[1]


class Under(Mapping[Place, Spot]):
    """The spots below the path `place` in `spots`."""

    def __init__(self, spots: Mapping[Place, Spot], place: Place) -> None:
        self._spots = spots
        self._place = place

    def __getitem__(self, place: Place) -> Spot:
        return self._spots[(*self._place, *place)]

    def __iter__(self) -> Iterator[Place]:
        size = len(self._place)
        return (place[size:] for place in self._spots if place[:size] == self._place)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _blank(text: str, at: int) -> int:
    """The first offset of `text` from `at` on that isn't white space."""
    found = _BLANK.match(text, at)
    assert found  # It matches the empty text too.
    return found.end()


def documents(text: str) -> list[tuple[object, Mapping[Place, Spot]]]:
    """The documents in `text`, one after another, each with the places of its parts.

    Raises ValueError, also if one of them is no object or array.
    """
    lines = _Lines(text)
    start = _blank(text, 0)
    try:
        return [(load_json(text.encode()), _Places(text, start, lines))]
    except ValueError:
        pass
    return [(data, _Places(text, at, lines)) for data, at in _several(text)]


def _several(text: str) -> Iterator[tuple[object, int]]:
    """Each of the documents in `text`, and where it begins.  Raises ValueError."""
    import json  # Few files need it.

    decoder = json.JSONDecoder(parse_constant=_no_constant)
    at = _blank(text, 0)
    while True:
        try:
            data, end = decoder.raw_decode(text, at)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(data, dict | list):
            raise json.JSONDecodeError("Expecting an object", text, at)
        yield data, at
        at = _blank(text, end)
        if at == len(text):
            return


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} isn't JSON")


def spot_of_error(text: str) -> tuple[Spot, str]:
    """The first spot at which `text` isn't JSON, and why."""
    import json

    try:
        for _ in _several(text):
            pass
    except json.JSONDecodeError as error:
        return spot_of(text, error.pos), error.msg
    except ValueError:
        pass
    return Spot(line=1, column=1), "it can't be read"
