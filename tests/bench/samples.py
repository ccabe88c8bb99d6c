"""Candidates in alternation, and what their times are as ratios to a baseline.

A machine's speed changes while a benchmark runs.  So each round runs every candidate once, in
an order of its own, and a ratio is always that of two times of the same round.
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

Unit = Literal["ms", "MiB"]
# A pipe holds that much with nobody reading, so that no writer has to run beside the candidate.
_PIPE = 1 << 16
_WARM_UP = 2
# The rounds of a whole run, whose figures are worth keeping.
ROUNDS = 40
# Digits behind the point that are kept.
DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One thing that was measured."""

    name: str
    label: str
    budget: float | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate(Measured):
    """One thing to measure.

    `prepare` is called at the start of a round, before any candidate runs, and gives the function
    that runs it once and returns the figure; what it opens goes into the ExitStack.
    """

    prepare: Callable[[ExitStack], Callable[[], float]]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median and its quartiles."""

    q1: float
    median: float
    q3: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came out for one candidate: its figures, and their ratios to the baseline's."""

    name: str
    label: str
    value: Spread
    ratio: Spread
    budget: float | None
    samples: tuple[float, ...]
    ratios: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """`within` or `over` the budget, by the ratio as it is on file; "" where there is none."""
        if self.budget is None:
            return ""
        return "within" if round(self.ratio.median, DIGITS) <= self.budget else "over"


@dataclass(frozen=True, kw_only=True)
class Group:
    """The candidates that share a baseline, which is the first of the rows."""

    name: str
    title: str
    unit: Unit
    rows: tuple[Row, ...]


def part(whole: int, rounds: int) -> int:
    """As much of `whole` as there are `rounds` of ROUNDS: a run that is short has little to do."""
    return max(1, whole * min(rounds, ROUNDS) // ROUNDS)


def measure(
    name: str, title: str, candidates: Sequence[Candidate], *, rounds: int, unit: Unit = "ms"
) -> Group:
    """Run all `candidates` once in each of the `rounds`; the first is the baseline."""
    samples: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    # Always the same orders, but none of the candidates always behind the same other one.
    shuffle = random.Random(0).shuffle
    for number in range(-min(_WARM_UP, rounds // 2), rounds):
        with ExitStack() as stack:
            runs = [(candidate.name, candidate.prepare(stack)) for candidate in candidates]
            shuffle(runs)
            for key, run in runs:
                figure = run()
                if number >= 0:
                    samples[key].append(figure)
    return group(name, title, candidates, samples, unit=unit)


def group(
    name: str,
    title: str,
    measured: Sequence[Measured],
    samples: Mapping[str, Sequence[float]],
    *,
    unit: Unit = "ms",
) -> Group:
    """What came out for all that was `measured`, in `samples`; the first is the baseline."""
    baseline = samples[measured[0].name]
    rows = tuple(_row(one, samples[one.name], baseline) for one in measured)
    return Group(name=name, title=title, unit=unit, rows=rows)


def _row(candidate: Measured, figures: Sequence[float], baseline: Sequence[float]) -> Row:
    ratios = tuple(figure / base for figure, base in zip(figures, baseline, strict=True))
    return Row(
        name=candidate.name,
        label=candidate.label,
        value=_spread(figures),
        ratio=_spread(ratios),
        budget=candidate.budget,
        samples=tuple(figures),
        ratios=ratios,
    )


def _spread(figures: Sequence[float]) -> Spread:
    q1, median, q3 = statistics.quantiles(figures, n=4, method="inclusive")
    return Spread(q1=q1, median=median, q3=q3)


def milliseconds(argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str]) -> float:
    """The time from the spawn of `argv` to its end.  Raises RuntimeError if it fails.

    posix_spawn(3) doesn't copy this process, so its size is not part of what is measured.
    """
    return _run(argv, stdin, env)[0]


def processor(argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str]) -> float:
    """The processor time of `argv`, in milliseconds.  Raises RuntimeError if it fails."""
    return _run(argv, stdin, env)[1]


def _run(argv: Sequence[str], stdin: bytes, env: Mapping[str, str]) -> tuple[float, float]:
    """The time that `argv` takes, and its processor time.  Raises RuntimeError if it fails."""
    if len(stdin) > _PIPE:
        raise ValueError(f"{len(stdin)} bytes are more than a pipe holds")
    reader, writer = os.pipe()
    errors = os.memfd_create("stderr")
    try:
        os.write(writer, stdin)
        os.close(writer)
        actions = [
            (os.POSIX_SPAWN_DUP2, reader, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, errors, 2),
        ]
        start = time.perf_counter_ns()
        pid = os.posix_spawn(argv[0], list(argv), env, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        end = time.perf_counter_ns()
        if status:
            text = os.pread(errors, 1 << 16, 0).decode(errors="replace")
            code = os.waitstatus_to_exitcode(status)
            raise RuntimeError(f"exit status {code}: {list(argv)}\n{text}")
    finally:
        os.close(reader)
        os.close(errors)
    return (end - start) / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3
