"""The JSON that is shipped for hooks.d: its schema, and what it matches."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.delegation.annotations import KEYS, PREFIX
from oci_bpf_hook.hook import process
from oci_bpf_hook.mount import child, host_half
from tests.support.places import ROOT

FILES = sorted((ROOT / "hooks.d").glob("*.json"))
SCHEMA = json.loads((ROOT / "schema" / "hook.schema.json").read_text())
# Seconds for a half that takes back what another has left, where both had to be killed.
TAKING_BACK = host_half._UNDO_DEADLINE + 2 * child._KILL_DEADLINE


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_there_is_one() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_schema(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    assert [error.message for error in validator.iter_errors(load(path))] == []


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.1.0"},
        {"when": {}},
        {"when": {"annotations": {"io.bpffs": ".*"}}},
        {"stages": ["precreate"]},
        {"hook": {"path": "oci-bpf-hook"}},
        {"hook": {"path": "/x", "args": ["x"], "env": [], "timeout": 1}},
        {"hook": {"path": "/x", "args": ["x"], "env": ["A=b"]}},
        {"extra": 1},
    ],
    ids=str,
)
def test_the_schema_refuses(change: dict[str, object]) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    assert not validator.is_valid(load(FILES[0]) | change)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_it_matches(path: Path) -> None:
    ((pattern, value),) = load(path)["when"]["annotations"].items()
    assert value == ".*"
    # A misspelt key must come to be refused, in whatever way it is.
    for key in (*KEYS, "delegate_cmd", "", "a\nb"):
        assert re.search(pattern, PREFIX + key)
        for name in ("web", "", "/", "web\n"):
            assert re.search(pattern, f"{PREFIX}{key}/{name}")
    for other in (
        "io.bpffs",
        "xio.bpffs.path",
        "io-bpffs.path",
        "io.bpffsx.path",
        "run.io.bpffs.a",
    ):
        assert not re.search(pattern, other)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_runtime_waits_longer_than_the_hook(path: Path) -> None:
    # Once for the state and once for the container half, whose broker may have to be waited for.
    assert load(path)["hook"]["timeout"] > process._DEADLINE + host_half.ASKING + TAKING_BACK


def test_nothing_that_hangs_takes_five_seconds() -> None:
    """Not a state that doesn't come, and no container half; tests make each of them hang."""
    assert process._DEADLINE < 5
    assert child.Half.seconds + TAKING_BACK < 5
