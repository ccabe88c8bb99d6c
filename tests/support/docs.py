"""What people read: the README and the pages of docs/, with their blocks, headings and links."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .places import ROOT

# Of the links these are followed: to files, and to headings of pages.
_LINK = re.compile(r"\]\((?![a-z]+:)([^)\s#]*)(?:#([^)\s]*))?\)")
_FENCE = "```"


class Block(NamedTuple):
    """A fenced block: its page, the number of its first line, and the heading that it is below.

    `said` is the last line of text before it.
    """

    page: str
    line: int
    heading: str
    language: str
    said: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its commands, each with the lines that continue it."""
        found: list[str] = []
        for line in self.text.splitlines(keepends=True):
            if found and re.search(r"(\\|\|\||&&|\|)\n\Z", found[-1]):
                found[-1] += line
            else:
                found.append(line)
        return [one.strip() for one in found]


def pages(root: Path = ROOT) -> dict[str, str]:
    """The text of each page below `root`, by its name from there."""
    paths = [*root.glob("*.md"), *root.glob("docs/*.md")]
    ours = [path for path in paths if path.name != "CHANGELOG.md"]
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in sorted(ours)}


PAGES = pages()


def blocks(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks of `text`."""
    heading = said = ""
    language, begin = None, 0
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if line.startswith(_FENCE) and language is None:
            language, begin = line[len(_FENCE) :].strip(), number + 1
        elif line.startswith(_FENCE):
            assert language is not None
            yield Block(
                page, begin, heading, language, said, "".join(lines[begin - 1 : number - 1])
            )
            language = None
        elif language is None and re.match("#+ ", line):
            heading = line.lstrip("#").strip()
        elif language is None and line.strip():
            said = line.strip()
    assert language is None, f"{page}: the block at line {begin} doesn't end"


BLOCKS = [block for page, text in PAGES.items() for block in blocks(page, text)]


def prose(text: str) -> str:
    """`text` without its blocks."""
    return re.sub(rf"(?ms)^{_FENCE}.*?^{_FENCE}\n", "\n", text)


def section(page: str, heading: str) -> str:
    """What is below that heading of the page, up to the next one of its level."""
    match = re.search(rf"(?ms)^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", PAGES[page])
    assert match, f"{page} has no heading {heading!r}"
    return match[2]


def has_test(place: str) -> bool:
    """Whether there is the test `MODULE::NAME`: the function test_NAME in test_MODULE.py.

    MODULE may begin with folders, if there are several modules of the same name.
    """
    module, _, name = place.partition("::")
    folder, _, file = module.rpartition("/")
    paths = (ROOT / "tests" / folder).rglob(f"test_{file}.py")
    return any(f"\ndef test_{name}(" in path.read_text(encoding="utf-8") for path in paths)


def anchors(text: str) -> set[str]:
    """What links to headings of `text` may name, as GitHub makes it of them."""
    found: set[str] = set()
    for heading in re.findall(r"(?m)^#+ (.*)$", prose(text)):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = 0
        while words + f"-{count}" * bool(count) in found:
            count += 1
        found.add(words + f"-{count}" * bool(count))
    return found


def links(text: str) -> Iterator[tuple[str, str]]:
    """Each link and picture of `text` that isn't of another site: a file and an anchor, or ""."""
    for match in _LINK.finditer(prose(text)):
        yield match[1], match[2] or ""


def broken(root: Path = ROOT) -> list[str]:
    """The links of the pages below `root` that lead nowhere there."""
    found = []
    for page, text in pages(root).items():
        here = root / page
        for name, anchor in links(text):
            target = here.parent / name if name else here
            if not target.exists():
                found.append(f"{page}: {name}")
            elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
                found.append(f"{page}: {name}#{anchor}")
    return found
