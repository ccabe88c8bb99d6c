"""What a file describes: its containers, what else is in it, and the text with their places.

A unit file and its drop-ins are read as one text, so the spots in that text may be in several
files.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ..text.places import Spot
from ..values import Value
from .container import Asker


class Part(Value):
    """The file `name`, whose text begins at the line `line`, from 1, of the whole text."""

    __slots__ = ("line", "name")
    line: int
    name: str


class Content(Value):
    """The containers, and `others`, which are things that describe no container, in words.

    `parts` are the files that make up the `text`, in their order there.
    """

    __slots__ = ("askers", "others", "parts", "text")
    askers: tuple[Asker, ...]
    others: tuple[str, ...]
    parts: tuple[Part, ...]
    text: str


def content(
    name: str, askers: Iterable[Asker], *, others: Iterable[str] = (), text: str = ""
) -> Content:
    """The Content of the one file `name`, with the text `text`."""
    return Content(
        askers=tuple(askers),
        others=tuple(others),
        parts=(Part(line=1, name=name),),
        text=text,
    )


def located(parts: tuple[Part, ...], spot: Spot) -> tuple[str, Spot]:
    """The file in which `spot` is, and the spot there."""
    if len(parts) == 1:
        return parts[0].name, spot
    part = parts[bisect_right(parts, spot.line, key=lambda one: one.line) - 1]
    return part.name, Spot(line=spot.line - part.line + 1, column=spot.column)


class Source(Value):
    """The file that requests are from, with its lines; without a file all of this is empty.

    `others` are things in it that describe no container, in words.  `parts` are the files that the
    lines are from, such as the drop-ins of a unit file.
    """

    __slots__ = ("lines", "name", "others", "parts")
    name: str
    lines: Sequence[str]
    others: tuple[str, ...]
    parts: tuple[Part, ...]

    def located(self, spot: Spot) -> tuple[str, Spot]:
        """The file in which `spot` is, empty if there is none, and the spot there."""
        return located(self.parts, spot) if self.parts else ("", spot)

    def place(self, spot: Spot) -> str:
        """The file, the line and the column of `spot`."""
        name, there = self.located(spot)
        return f"{name}:{there.line}:{there.column}"
