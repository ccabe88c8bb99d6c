"""Where in a file something stands: for messages that an editor can jump to."""

from ..values import Value

# A path into a file's data; with "key" behind it, the key itself rather than its value.
Place = tuple[str | int, ...]


class Spot(Value):
    """A line and a column, both from 1."""

    __slots__ = ("column", "line")
    line: int
    column: int


class Fault(Value):
    """Something wrong, or for a warning doubtful, at a place of the file; lines from 1."""

    __slots__ = ("column", "line", "text")
    line: int
    column: int
    text: str


def fault(spot: Spot, text: str) -> Fault:
    return Fault(line=spot.line, column=spot.column, text=text)


def spot_of(text: str, offset: int) -> Spot:
    """The spot of the character at `offset` of `text`."""
    start = text.rfind("\n", 0, offset) + 1
    return Spot(line=text.count("\n", 0, offset) + 1, column=offset - start + 1)
