"""The results as a table for people and as JSON for the plot and for comparison."""

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from .samples import DIGITS, Group, Row, Spread

PROGRAMS: Final = ("podman", "crun", "runc")


def environment(*, storage: str | None) -> dict[str, Any]:
    """What the figures depend on, and nothing that tells which machine this is."""
    return {
        # Without what a builder calls his own.
        "kernel": os.uname().release.partition("-")[0],
        "machine": os.uname().machine,
        "cpus": os.cpu_count(),
        "python": _version("/usr/bin/python3"),
        **{program: _version(program) for program in PROGRAMS},
        "podman_storage": storage,
    }


def _version(program: str) -> str | None:
    # "podman version 4.3.1", "crun version 1.8.1", "runc version 1.1.5+ds1", "Python 3.11.2"
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0].split()[-1]


def as_json(
    groups: Iterable[Group], *, rounds: int, left_out: Sequence[str], storage: str | None
) -> dict[str, Any]:
    """Everything that was found; `left_out` says what couldn't be measured here and why."""
    return {
        "rounds": rounds,
        "environment": environment(storage=storage),
        "left_out": list(left_out),
        "groups": [
            {
                "name": group.name,
                "title": group.title,
                "unit": group.unit,
                "baseline": group.rows[0].name,
                "rows": [_row(row) for row in group.rows],
            }
            for group in groups
        ],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": row.label,
        "value": _spread(row.value),
        "ratio": _spread(row.ratio),
        "budget": row.budget,
        "verdict": row.verdict or None,
        "samples": [round(figure, DIGITS) for figure in row.samples],
        "ratios": [round(ratio, DIGITS) for ratio in row.ratios],
    }


def _spread(spread: Spread) -> dict[str, float]:
    return {
        "q1": round(spread.q1, DIGITS),
        "median": round(spread.median, DIGITS),
        "q3": round(spread.q3, DIGITS),
    }


def write_json(results: dict[str, Any], path: Path) -> None:
    """Write the `results`, lists of numbers in one line each: the file is kept in git."""
    text = json.dumps(results, indent=1)
    lists: list[str] = []
    inside = False
    for line in text.splitlines():
        stripped = line.strip()
        if inside:
            lists[-1] += f" {stripped}" if lists[-1][-1] == "," else stripped
            inside = not stripped.startswith("]")
        else:
            lists.append(line)
            inside = line.endswith('": [') and stripped in ('"samples": [', '"ratios": [')
    path.write_text("\n".join(lists) + "\n", encoding="utf-8")


def table(groups: Iterable[Group]) -> str:
    """The table, a line for each candidate."""
    lines: list[str] = []
    for group in groups:
        lines += [
            group.title,
            f"  {'':46} {'median':>9}  {'quartiles':<15} {'ratio':>6}  {'quartiles':<12} budget",
        ]
        lines += [_line(row, group.unit) for row in group.rows]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row, unit: str) -> str:
    value = f"{row.value.median:.2f} {unit}"
    around = f"{row.value.q1:.2f} .. {row.value.q3:.2f}"
    ratios = f"{row.ratio.q1:.2f} .. {row.ratio.q3:.2f}"
    budget = f"{row.budget:.2f} {row.verdict}" if row.budget is not None else ""
    start = f"  {row.label:<46} {value:>10} {around:<15} {row.ratio.median:>6.2f}  {ratios:<12}"
    return f"{start} {budget}".rstrip()
