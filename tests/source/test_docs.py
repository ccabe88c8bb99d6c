"""The README, docs/ and the code say the same."""

import re
import shlex
from pathlib import Path

import pytest

from oci_bpf_hook.cli.main import _parser
from oci_bpf_hook.cli.options.table import ENTRIES
from oci_bpf_hook.delegation.annotations import KEYS, MODE, PATH, PREFIX
from oci_bpf_hook.errors import EXITS
from tests.support.docs import BLOCKS, PAGES, anchors, broken, links, pages, prose, section
from tests.support.places import ROOT

every_page = pytest.mark.parametrize("page", PAGES)


def test_exit_codes() -> None:
    text = PAGES["docs/troubleshooting.md"]
    rows = dict(re.findall(r"^\| (\d+) \| (.*?) \| .*\|$", text, re.MULTILINE))
    assert {int(code): text for code, text in rows.items()} == EXITS


def test_annotations() -> None:
    text = PAGES["docs/annotations.md"]
    rows = dict(re.findall(r"^\| `(io\.bpffs\.\w+)` \|.*\| (.*) \|$", text, re.MULTILINE))
    assert list(rows) == [PREFIX + key for key in KEYS]
    assert rows[f"{PREFIX}path"] == f"`{PATH}`"
    assert rows[f"{PREFIX}mode"] == f"`{MODE:o}`"


@every_page
def test_files_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:hooks\.d|contrib|docs|schema|tests)/[\w./-]+)`", PAGES[page])
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_causes() -> None:
    """What doctor is said to call them, it calls them."""
    text = section("docs/troubleshooting.md", "By symptom")
    named = re.findall(r"`([a-z-]+)`", "".join(re.findall(r"(?m)^\|[^|]*(\|[^|]*\|)", text)))
    assert len(named) > 20
    package = ROOT / "oci_bpf_hook"
    folders = ("advise", "bpf", "doctor")
    paths = [path for folder in folders for path in (package / folder).rglob("*.py")]
    code = "".join(path.read_text() for path in paths)
    assert [name for name in named if f'"{name}"' not in code] == []


# ---- links -------------------------------------------------------------------------------------


def test_links_lead_somewhere() -> None:
    assert broken() == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "[a](docs/a.md#is-a-is) [b](docs/b.md) [c](docs/a.md#c) ![d](d.png) [e](#f) <http://g>"
    )
    (tmp_path / "docs" / "a.md").write_text("## `Is` a_(is)\n```sh\n# c\n[x](y)\n```\n")
    assert anchors(pages(tmp_path)["docs/a.md"]) == {"is-a_is"}
    nowhere = ["docs/a.md#is-a-is", "docs/b.md", "docs/a.md#c", "d.png", "#f"]
    assert broken(tmp_path) == [f"README.md: {name}" for name in nowhere]


def test_every_page_is_linked() -> None:
    """From the README, which is the index, and so is each picture from some page."""
    linked = {name for name, _ in links(PAGES["README.md"])}
    assert {page for page in PAGES if page != "README.md"} <= linked
    files = {name for page in PAGES for name, _ in links(PAGES[page])}
    for path in (ROOT / "docs" / "pictures").iterdir():
        assert f"pictures/{path.name}" in files


def test_readmes_elsewhere_link_to_what_is_there() -> None:
    for folder in ("contrib", "hooks.d"):
        for path in (ROOT / folder).rglob("README.md"):
            for name, _ in links(path.read_text()):
                assert (path.parent / name).exists(), name


# ---- their form --------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 150


@every_page
def test_tables(page: str) -> None:
    """Each row has as many cells as its table's first."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGES[page], re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()]
        assert len({len(row) for row in rows}) == 1, table
        assert {cell.strip(" -") for cell in rows[1]} == {""}, table


@every_page
def test_places_for_tables_that_are_made(page: str) -> None:
    places = re.findall(r"<!-- (.*) -->", PAGES[page])
    assert places[1::2] == ["end"] * len(places[::2])
    assert all(re.fullmatch(r"table: [a-z]+", name) for name in places[::2])


@every_page
def test_no_block_hides(page: str) -> None:
    """What isn't in a fence isn't a block: of those in fences each is looked at."""
    assert re.findall(r"(?m)^\n(?: {4,}|\t).*$", prose(PAGES[page])) == []


def test_diagrams() -> None:
    """Their arrows are between those who take part, and each of these does something."""
    diagrams = [block for block in BLOCKS if block.language == "mermaid"]
    assert diagrams
    for block in diagrams:
        first, *lines = block.text.splitlines()
        assert first == "sequenceDiagram"
        parts = re.findall(r"(?m)^    participant (\w+) as \S.*$", block.text)
        arrows = re.findall(r"(?m)^    (\w+)->>(\w+): [^;\n]+$", block.text)
        notes = re.findall(r"(?m)^    Note over (\w+): [^;\n]+$", block.text)
        assert len(parts) + len(arrows) + len(notes) == len(lines)
        assert {one for arrow in arrows for one in arrow} == set(parts)
        assert set(notes) <= set(parts)


# ---- what they tell to do ----------------------------------------------------------------------


@every_page
def test_make_targets_that_are_named_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in re.findall(r"(?m)(?:`|^|=\S+ )make ([a-z][a-z -]*)", PAGES[page]):
        for target in words.split():
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@every_page
def test_commands_within_text_exist(page: str) -> None:
    names = {entry.name for entry in ENTRIES} | {"COMMAND"}
    said = re.findall(r"`oci-bpf-hook ([^`]+)`", " ".join(prose(PAGES[page]).split()))
    assert {words.split()[0] for words in said} - names - {"--help"} == set()


def test_the_readme_has_every_command() -> None:
    rows = re.findall(r"(?m)^\| .*\| (.*) \|$", section("README.md", "The commands"))
    named = re.findall(r"`([a-z]+)`", " ".join(rows))
    assert sorted(named) == sorted(entry.name for entry in ENTRIES)


def test_contrib_is_tested() -> None:
    """Each file is named, with the directories that it is in, by a test; the README below."""
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
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


def test_the_commands_that_are_shown_are_understood() -> None:
    shown = [
        command
        for block in BLOCKS
        for command in block.commands
        if block.language == "sh" and command.startswith("oci-bpf-hook ")
    ]
    assert len(shown) > 40
    for line in shown:
        # What they do, test_docs_commands looks at.
        alone = re.split("[|>]", re.sub(r"\\\n", "", line).replace("$pid", "1"))[0]
        words = shlex.split(alone, comments=True)[1:]
        assert callable(_parser(words).parse_args(words).run), line
