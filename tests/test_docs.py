"""The README and the code say the same."""

import re
from pathlib import Path

from oci_bpf_hook.annotations import KEYS, MODE, PATH, PREFIX
from oci_bpf_hook.cli import _parser
from oci_bpf_hook.commands.table import ENTRIES
from oci_bpf_hook.errors import EXITS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_exit_codes() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    assert {int(code): text for code, text in rows.items()} == EXITS


def test_annotations() -> None:
    rows = dict(re.findall(r"^\| `(io\.bpffs\.\w+)` \|.*\| (.*) \|$", README, re.MULTILINE))
    assert list(rows) == [PREFIX + key for key in KEYS]
    assert rows[f"{PREFIX}path"] == f"`{PATH}`"
    assert rows[f"{PREFIX}mode"] == f"`{MODE:o}`"


def test_files_that_are_named_exist() -> None:
    named = set(re.findall(r"`((?:hooks\.d|contrib|schema|tests)/[\w./-]+)`", README))
    named |= set(re.findall(r"\]\(([\w./-]+)\)", README))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", README)) - {"a"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_contrib_is_tested() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for path in (ROOT / "contrib").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert path.name in tests, path


def test_the_commands_that_are_shown_are_understood() -> None:
    shown = re.findall(r"^    oci-bpf-hook ([^#\n]+)", README, re.MULTILINE)
    assert {line.split()[0] for line in shown} <= {entry.name for entry in ENTRIES}
    for line in shown:
        # What they do isn't done: some go on for ever, and some change containers.
        words = line.split()
        assert callable(_parser(words).parse_args(words).run), line
