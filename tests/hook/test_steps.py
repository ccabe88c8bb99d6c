"""The steps of the hook: their list in `hook.main`, in docs/how-it-works.md, and at the code."""

import inspect
import re
import tokenize
from pathlib import Path

import pytest

from oci_bpf_hook.broker import worker as session
from oci_bpf_hook.cli.commands import delegate
from oci_bpf_hook.cli.options import trial
from oci_bpf_hook.hook import asking, main, precreate
from oci_bpf_hook.pipeline import case
from oci_bpf_hook.recording.live import run as recording
from tests.support.places import ROOT

LISTED = re.findall(r"^(\d+)\. ([\w-]+): ", inspect.getdoc(main.main) or "", re.MULTILINE)
STEPS = {int(number): name for number, name in LISTED}
# Where they are taken: all of them in the hook, with `case` for those that all have in common.
ALL = set(STEPS)
TAKEN = {
    main: ALL,
    case: ALL - {1, 2},
    precreate: ALL - {8, 9, 10},
    asking: {3, 6, 8, 9},
    session: ALL,
    delegate: ALL,
    trial: ALL - {1, 2, 9, 10},
    recording: ALL - {1, 2, 3},
}


def numbered(path: Path) -> list[tuple[int, str]]:
    """The steps that the comments of the file name, in its order."""
    with path.open("rb") as file:
        comments = [
            token.string
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        ]
    found = re.findall(r"(?<![\w.])(\d+)\. ([\w-]+)", "\n".join(comments))
    return [(int(number), name) for number, name in found]


def test_they_are_numbered_in_their_order() -> None:
    assert list(STEPS) == list(range(1, len(STEPS) + 1))
    assert len(STEPS) == 10


def test_the_docs_have_the_same_list() -> None:
    """Each step is told in the same words, and the chain above the list has them in order."""
    docs = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    told = inspect.getdoc(main.main) or ""
    lines = re.findall(r"^(\d+\. .*)$", told, re.MULTILINE)
    assert len(lines) == len(STEPS)
    plain = re.sub(r"\*\*|`", "", docs)
    assert re.findall(r"^(\d+\. .*)$", plain, re.MULTILINE) == lines
    assert f"```text {' -> '.join(STEPS.values())} ```" in " ".join(docs.split())


@pytest.mark.parametrize("module", TAKEN, ids=lambda module: module.__name__)
def test_the_code_has_the_numbers_of_the_list(module: object) -> None:
    assert inspect.ismodule(module)
    found = numbered(Path(module.__file__ or ""))
    assert {number: STEPS[number] for number, _ in found} == dict(found)
    assert {number for number, _ in found} == TAKEN[module]


def test_the_hook_takes_them_in_their_order() -> None:
    numbers = [number for number, _ in numbered(Path(main.__file__))]
    assert numbers == sorted(numbers) == list(STEPS)


def test_the_hook_is_read_on_one_screen() -> None:
    """All ten steps, from the state to the record, with what stands between."""
    for function in (main.main, main._for_state, main._delegate):
        assert len(inspect.getsource(function).split("\n")) <= 51
