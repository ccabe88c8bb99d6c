"""The README, docs/ and the code say the same."""

import re
from pathlib import Path

import pytest

from oci_bpf_hook.annotations import KEYS, MODE, PATH, PREFIX
from oci_bpf_hook.cli import _parser
from oci_bpf_hook.commands.table import ENTRIES
from oci_bpf_hook.errors import EXITS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# What people read, by the directory that its links start from.
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def test_exit_codes() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    assert {int(code): text for code, text in rows.items()} == EXITS


def test_annotations() -> None:
    rows = dict(re.findall(r"^\| `(io\.bpffs\.\w+)` \|.*\| (.*) \|$", README, re.MULTILINE))
    assert list(rows) == [PREFIX + key for key in KEYS]
    assert rows[f"{PREFIX}path"] == f"`{PATH}`"
    assert rows[f"{PREFIX}mode"] == f"`{MODE:o}`"


@every_page
def test_files_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"`((?:hooks\.d|contrib|docs|schema|tests)/[\w./-]+)`", PAGES[path]))
    assert {name for name in named if not (ROOT / name).exists()} == set()
    assert {name for name in _links(PAGES[path]) if not (path.parent / name).exists()} == set()


def _links(text: str) -> set[str]:
    return set(re.findall(r"\]\(([\w./-]+)\)", text))


def test_every_page_of_docs_is_linked() -> None:
    linked = [(path.parent / name) for path in PAGES for name in _links(PAGES[path])]
    for path in PAGES:
        assert path.parent == ROOT or path in linked


@every_page
def test_tables(path: Path) -> None:
    """Each row has as many cells as its table's first."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGES[path], re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()]
        assert len({len(row) for row in rows}) == 1, table
        assert {cell.strip(" -") for cell in rows[1]} == {""}, table


@every_page
def test_places_for_tables_that_are_made(path: Path) -> None:
    places = re.findall(r"<!-- (.*) -->", PAGES[path])
    assert places[1::2] == ["end"] * len(places[::2])
    assert all(re.fullmatch(r"table: [a-z]+", name) for name in places[::2])


@every_page
def test_make_targets_that_are_named_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", PAGES[path])) - {"a"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_contrib_is_tested() -> None:
    """Each file is named, with the directories that it is in, by a test; the README below."""
    tests = [path.read_text() for path in (ROOT / "tests").glob("test_*.py")]
    for path in (ROOT / "contrib").rglob("*"):
        if path.is_file() and path.suffix != ".pyc" and path.name != "README.md":
            names = path.relative_to(ROOT / "contrib").parts
            words = [re.compile(rf"""["'/ ]{re.escape(name)}["'/ ,.)]""") for name in names]
            assert any(all(word.search(test) for word in words) for test in tests), path


def test_readmes_in_contrib() -> None:
    """They name what is there, and nothing else."""
    folders = {path.parent: path.read_text() for path in (ROOT / "contrib").rglob("README.md")}
    for folder, text in folders.items():
        for name in re.findall(r"^- `([\w./-]+)`", text, re.MULTILINE):
            assert (folder / name).exists(), name
        for name in re.findall(r"(?<=[ `])contrib/[\w./-]+(?=[\s`,])", text):
            assert (ROOT / name).exists(), name
    for path in (ROOT / "contrib").iterdir():
        named = re.search(rf"`{path.name}/?`", folders[ROOT / "contrib"])
        assert named or path.name == "README.md", path


@every_page
def test_the_commands_that_are_shown_are_understood(path: Path) -> None:
    shown = re.findall(r"^    oci-bpf-hook ([^#|\n]+)", PAGES[path], re.MULTILINE)
    assert {line.split()[0] for line in shown} <= {entry.name for entry in ENTRIES}
    for line in shown:
        # What they do isn't done: some go on for ever, and some change containers.
        words = line.split()
        assert callable(_parser(words).parse_args(words).run), line
