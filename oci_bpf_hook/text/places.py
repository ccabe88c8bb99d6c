"""Lines and columns in a file, for messages that an editor can jump to."""

from ..values import Value

# A path into a file's data; with "key" after it, it means the key itself and not its value.
Place = tuple[str | int, ...]


class Spot(Value):
    """A line and a column, both from 1."""

    __slots__ = ("column", "line")
    line: int
    column: int


class Fault(Value):
    """Something wrong or, in a warning, doubtful at a line and column of the file, from 1."""

    __slots__ = ("column", "line", "text")
    line: int
    column: int
    text: str


def fault(spot: Spot, text: str) -> Fault:
    """The fault that `text` describes, at `spot`."""
    return Fault(line=spot.line, column=spot.column, text=text)


def spot_of(text: str, offset: int) -> Spot:
    """The spot of the character at `offset` of `text`."""
    start = text.rfind("\n", 0, offset) + 1
    return Spot(line=text.count("\n", 0, offset) + 1, column=offset - start + 1)


def find_word(word: str, line: str, start: int, end: int) -> int:
    """The offset of `word` in this part of `line`, or -1.

    The file's text isn't parsed here, so a word that is part of another is skipped.
    """
    at = line.find(word, start, end)
    while at >= 0:
        before, after = line[at - 1 : at], line[at + len(word) : at + len(word) + 1]
        if not (_in_word(before) or before == "!" or _in_word(after)):
            return at
        at = line.find(word, at + 1, end)
    return -1


def _in_word(character: str) -> bool:
    return character.isalnum() or character in ("_", ".", "-")
