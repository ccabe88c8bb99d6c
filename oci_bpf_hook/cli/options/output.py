"""Prints what the commands answer: tables and colour on a terminal, plain text elsewhere, or JSON.

Tables and colour are rich's, which is imported only if the output is a terminal; if rich isn't
installed the text is plain.  NO_COLOR is honoured.  Names that other people chose are printed here,
so characters that aren't printable are shown as escapes.
"""

import os
import sys
from collections.abc import Iterable, Sequence

from ...values import Value
from .table import argument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console
    from rich.text import Text

    # Lines as they are printed.
    Ready = Sequence[str | Text]

# The option of every command that prints an answer.
JSON = argument("--json", action="store_true", help="print JSON")
# The same option for commands with --format.
JSON_FORM = argument(
    "--json", action="store_const", const="json", dest="format", help="the same as --format json"
)

# The styles of a piece of text say what it means; _STYLES says what it looks like.
OK = "ok"
WARNING = "warning"
PROBLEM = "problem"
HEAD = "head"
FAINT = "faint"
_STYLES = {OK: "green", WARNING: "yellow", PROBLEM: "bold red", HEAD: "bold", FAINT: "dim"}


class Styled(Value):
    """A text with a `style`: OK, WARNING, PROBLEM, HEAD or FAINT."""

    __slots__ = ("style", "text")
    style: str
    text: str


Piece = str | Styled


def styled(style: str, text: str) -> Styled:
    """`text` in the `style`, for `Output.line` and `Output.table`."""
    return Styled(style=style, text=text)


def printable(text: str) -> str:
    """`text` with an escape for each character that isn't printable, line ends among them."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def print_json(value: object) -> None:
    """Print `value` as JSON, whether or not the output is a terminal."""
    import json  # It takes longer to import than most of what is printed as text.

    print(json.dumps(value, indent=2))


class Output:
    """Prints on `stream`, standard output by default."""

    def __init__(self, stream: "TextIO | None" = None) -> None:
        self._stream = stream or sys.stdout
        self._console = _console(self._stream)

    @property
    def terminal(self) -> bool:
        """Whether the output is a terminal with colours; this decides only how things look."""
        return self._console is not None

    def line(self, *pieces: Piece) -> None:
        """Print the pieces as one line, which isn't broken at the terminal's edge."""
        self.block(self.ready([pieces]))

    def ready(self, lines: Iterable[Sequence[Piece]]) -> "Ready":
        """The `lines`, each of some pieces, for `block`, which may print them more than once."""
        if not self._console:
            rows = ["".join(map(_plain, pieces)) for pieces in lines]
            return ["\n".join(rows)] if rows else []
        from rich.text import Text

        return [Text().join(map(_text, pieces)) for pieces in lines]

    def block(self, lines: "Ready") -> None:
        """Print what `ready` returned."""
        for line in lines:
            if self._console:
                self._console.print(line, soft_wrap=True)
            else:
                print(line, file=self._stream)

    def table(self, titles: Sequence[str], rows: Iterable[Sequence[Piece]]) -> None:
        """Print a table; a column that has only numbers is aligned to the right."""
        cells = [tuple(row) for row in rows]
        columns = [[_plain(row[number]) for row in cells] for number in range(len(titles))]
        right = [bool(column) and all(map(str.isdecimal, column)) for column in columns]
        if self._console:
            self._rich_table(titles, cells, right)
            return
        widths = [
            max(map(len, (title, *column))) for title, column in zip(titles, columns, strict=True)
        ]
        for texts in (tuple(titles), *zip(*columns, strict=True)):
            padded = (
                text.rjust(width) if to_the_right else text.ljust(width)
                for text, width, to_the_right in zip(texts, widths, right, strict=True)
            )
            print("  ".join(padded).rstrip(), file=self._stream)

    def _rich_table(
        self, titles: Sequence[str], rows: Iterable[Sequence[Piece]], right: Sequence[bool]
    ) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        assert self._console
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
        for title, to_the_right in zip(titles, right, strict=True):
            table.add_column(title, justify="right" if to_the_right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(_text, row))
        self._console.print(table)


def _console(stream: "TextIO") -> "Console | None":
    """rich's console, or None if `stream` isn't a capable terminal or rich isn't installed."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return None
    try:
        from rich.console import Console
    except ImportError:  # rich is optional.
        return None
    colourless = bool(os.environ.get("NO_COLOR"))
    return Console(file=stream, no_color=colourless, highlight=False, markup=False, emoji=False)


def _plain(piece: Piece) -> str:
    return printable(piece.text if isinstance(piece, Styled) else piece)


def _text(piece: Piece) -> "Text":
    from rich.text import Text

    return Text(_plain(piece), style=_STYLES[piece.style] if isinstance(piece, Styled) else "")
