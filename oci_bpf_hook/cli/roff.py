"""Text in the macros of man(7), as groff and mandoc read it."""

import re
import textwrap
from collections.abc import Iterable, Iterator

# roff fills paragraphs itself; short lines are for people who read the source.
_WIDTH = 78


def escaped(text: str) -> str:
    """Text in which nothing is a request or an escape of roff's; `words` become bold."""
    plain = text.replace("\\", "\\e")
    plain = re.sub(r"`([^`]+)`", lambda match: bold(match[1]), plain)
    return re.sub(r"(?<![\w\\-])--(?=\w)", r"\\-\\-", plain)


def dashes(text: str) -> str:
    """Text whose dashes can be copied and pasted as what a shell takes."""
    return text.replace("-", "\\-")


def bold(text: str) -> str:
    return f"\\fB{dashes(text)}\\fP"


def italic(text: str) -> str:
    return f"\\fI{dashes(text)}\\fP"


def wrapped(line: str) -> Iterator[str]:
    """`line` in several lines, none of which roff takes for a request."""
    for part in textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield re.sub(r"^([.'])", r"\\&\1", part)


def filled(text: str) -> Iterator[str]:
    """The paragraphs of `text`, which blank lines separate; an indented one stays as it is."""
    for number, paragraph in enumerate(re.split(r"\n\s*?\n", text.strip("\n"))):
        if paragraph.startswith("    "):
            yield from literally(textwrap.dedent(paragraph))
        else:
            if number:
                yield ".PP"
            yield from _sentences(" ".join(paragraph.split()))


def _sentences(text: str) -> Iterator[str]:
    # Each begins a line, as roff wants it.
    for sentence in re.split(r"(?<=[^.]\.) (?=[A-Z`]|--|oci-)", text):
        yield from wrapped(escaped(sentence))


def see(pages: Iterable[tuple[str, int]]) -> str:
    """References to other pages, each by its name and section."""
    return " ,\n".join(f".BR {dashes(name)} ({section})" for name, section in pages)


def tagged(tag: str, text: str) -> Iterator[str]:
    """A paragraph below the `tag`, which is roff already."""
    yield ".TP"
    yield tag
    yield from _sentences(text)


def literally(text: str) -> Iterator[str]:
    """`text` as it stands, with its line ends."""
    yield ".RS 4"
    yield ".nf"
    yield from (dashes(line.replace("\\", "\\e")) for line in text.split("\n"))
    yield ".fi"
    yield ".RE"
