"""Writes text with the macros of man(7), which groff and mandoc read."""

import re
import textwrap
from collections.abc import Iterable, Iterator

# The lines' length in the source, for people who read that; roff fills paragraphs itself.
_WIDTH = 78


def escaped(text: str) -> str:
    """`text` with roff's escapes for its characters; words in backticks become bold."""
    plain = text.replace("\\", "\\e")
    plain = re.sub(r"`([^`]+)`", lambda match: bold(match[1]), plain)
    return re.sub(r"(?<![\w\\-])--(?=\w)", r"\\-\\-", plain)


def dashes(text: str) -> str:
    """`text` whose dashes stay ASCII, so that they can be pasted into a shell."""
    return text.replace("-", "\\-")


def bold(text: str) -> str:
    """`text` in bold."""
    return f"\\fB{dashes(text)}\\fP"


def italic(text: str) -> str:
    """`text` in italics."""
    return f"\\fI{dashes(text)}\\fP"


def wrapped(line: str) -> Iterator[str]:
    """`line` broken into lines, none of which roff takes for a request."""
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
    # In roff's source each sentence begins a line.
    for sentence in re.split(r"(?<=[^.]\.) (?=[A-Z`]|--|oci-)", text):
        yield from wrapped(escaped(sentence))


def see(pages: Iterable[tuple[str, int]]) -> str:
    """References to other pages, each by its name and section."""
    return " ,\n".join(f".BR {dashes(name)} ({section})" for name, section in pages)


def tagged(tag: str, text: str) -> Iterator[str]:
    """A paragraph under the `tag`, which is already in roff."""
    yield ".TP"
    yield tag
    yield from _sentences(text)


def literally(text: str) -> Iterator[str]:
    """`text` that isn't filled, so that its lines stay as they are."""
    yield ".RS 4"
    yield ".nf"
    yield from (dashes(line.replace("\\", "\\e")) for line in text.split("\n"))
    yield ".fi"
    yield ".RE"
