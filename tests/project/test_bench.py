"""The benchmark runs and says what it found; no time is asserted here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.launcher import HERE, compile_c
from tests.support.engines import RUNTIMES
from tests.support.places import ROOT

PODS = {"yaml-100": 3.0, "json-100": 3.0, "yaml-1000": 12.0, "json-1000": 12.0}
ROWS = {
    "launcher": ["bare", "request", "rules", "nothing", "naive", "floor"],
    "command": ["bare", "help", "check"],
    **{f"podman-{runtime}": ["without", "hook", "bare"] for runtime in RUNTIMES},
    "broker": ["floor", "first", "late", "hundred", "crowd"],
    "broker-memory": ["before", "after"],
    "memory": ["bare", "request", "nothing"],
    "advise": ["start", "help", "one", "many"],
    "shim-calls": ["without", "with"],
    "shim-start": ["without", "with"],
    "shim-least": ["without", "with", "empty"],
    "pods": ["start", *PODS],
    "pods-growth-yaml": ["yaml-100", "yaml-1000"],
    "pods-growth-json": ["json-100", "json-1000"],
    "pods-memory": ["start", "yaml-1000", "json-1000"],
}
BUDGETS = {
    ("launcher", "request"): 2.0,
    ("command", "help"): 3.0,
    ("memory", "request"): 1.3,
    ("advise", "many"): 10.0,
    ("shim-calls", "with"): 1.02,
    ("shim-start", "with"): 1.03,
    ("pods-memory", "yaml-1000"): 5.0,
    ("pods-memory", "json-1000"): 5.0,
    ("pods-growth-yaml", "yaml-1000"): 10.0,
    ("pods-growth-json", "json-1000"): 10.0,
    **{("pods", name): budget for name, budget in PODS.items()},
} | {(f"podman-{runtime}", "hook"): 1.15 for runtime in RUNTIMES}


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("bench") / "results.json"
    done = _bench("--rounds", "2", "--json", str(file), "--no-plot")
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert isinstance(found, dict)
    # The table has them all, too.
    for group in found["groups"]:
        assert group["title"] in done.stdout
        assert [row["label"] for row in group["rows"] if row["label"] not in done.stdout] == []
    return found


def test_every_candidate_was_measured(results: dict[str, Any]) -> None:
    found = {group["name"]: [row["name"] for row in group["rows"]] for group in results["groups"]}
    assert found == ROWS
    assert results["left_out"] == []
    assert results["rounds"] == 2


def test_every_row_has_its_ratio(results: dict[str, Any]) -> None:
    for group in results["groups"]:
        assert group["baseline"] == group["rows"][0]["name"]
        assert group["unit"] == ("MiB" if "memory" in group["name"] else "ms")
        for row in group["rows"]:
            assert len(row["samples"]) == len(row["ratios"]) == results["rounds"]
            for spread in (row["ratio"], row["value"]):
                assert 0 < spread["q1"] <= spread["median"] <= spread["q3"]
        assert group["rows"][0]["ratio"] == {"q1": 1.0, "median": 1.0, "q3": 1.0}


def test_the_budgets(results: dict[str, Any]) -> None:
    rows = {
        (group["name"], row["name"]): row for group in results["groups"] for row in group["rows"]
    }
    assert {key: row["budget"] for key, row in rows.items() if row["budget"]} == BUDGETS
    for row in rows.values():
        over = row["budget"] and row["ratio"]["median"] > row["budget"]
        assert row["verdict"] == (row["budget"] and ("over" if over else "within"))


def test_the_results_name_no_machine(results: dict[str, Any]) -> None:
    assert str(ROOT) not in json.dumps(results)
    assert set(results["environment"]) == {
        *("kernel", "machine", "cpus", "python", "podman", "crun", "runc", "podman_storage")
    }


@pytest.mark.parametrize("source", sorted(HERE.glob("*.c")), ids=lambda source: source.name)
def test_the_c_programs_compile_without_a_warning(source: Path, tmp_path: Path) -> None:
    assert compile_c(source, tmp_path).exists()


def test_help() -> None:
    done = _bench("--help")
    assert done.returncode == 0
    for option in ("--rounds", "--only", "--json", "--plot", "--no-plot"):
        assert option in done.stdout


def test_too_few_rounds() -> None:
    done = _bench("--rounds", "1")
    assert done.returncode == 2
    assert "2 rounds" in done.stderr
