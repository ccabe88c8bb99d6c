"""The shim: what a call of bpf(2) costs that isn't refused, and a program's start."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.support.shim import library

from .launcher import BARE, ENVIRONMENT, HERE, compile_c
from .samples import Candidate, Group, measure, milliseconds, part

_CALLS: Final = 100_000
_CALLS_BUDGET: Final = 1.02
_STARTS: Final = 20
_START_BUDGET: Final = 1.03
# As small as a program that links to libc can be: what any library costs is seen best there.
_LEAST: Final = ("/bin/true",)
_EMPTY: Final = ("cc", "-shared", "-nostdlib", "-Wl,--hash-style=gnu", "-x", "c", "/dev/null")


def shim(directory: Path, *, rounds: int) -> list[Group]:
    """Calls and starts without the shim and with it; a C program is compiled in `directory`."""
    preloaded = {**ENVIRONMENT, "LD_PRELOAD": str(library())}
    empty = directory / "empty.so"
    subprocess.run([*_EMPTY, "-o", str(empty)], check=True)
    nothing = {**ENVIRONMENT, "LD_PRELOAD": str(empty)}
    calls = [str(compile_c(HERE / "lookups.c", directory)), str(part(_CALLS, rounds))]
    starts = part(_STARTS, rounds)
    return [
        measure(
            "shim-calls",
            f"{int(calls[1]):,} calls of bpf(2)",
            [
                _one("without", "without the shim", lambda: _calls(calls, ENVIRONMENT)),
                _one("with", "with the shim", lambda: _calls(calls, preloaded), _CALLS_BUDGET),
            ],
            rounds=rounds,
        ),
        measure(
            "shim-start",
            f"{starts} starts of the bare interpreter",
            [
                _one("without", "without the shim", _starts(BARE, ENVIRONMENT, starts)),
                _one("with", "with the shim", _starts(BARE, preloaded, starts), _START_BUDGET),
            ],
            rounds=rounds,
        ),
        measure(
            "shim-least",
            f"{10 * starts} starts of true(1)",
            [
                _one("without", "without the shim", _starts(_LEAST, ENVIRONMENT, 10 * starts)),
                _one("with", "with the shim", _starts(_LEAST, preloaded, 10 * starts)),
                _one("empty", "with an empty library", _starts(_LEAST, nothing, 10 * starts)),
            ],
            rounds=rounds,
        ),
    ]


def _one(name: str, label: str, run: Callable[[], float], budget: float | None = None) -> Candidate:
    def prepare(_stack: ExitStack) -> Callable[[], float]:
        return run

    return Candidate(name=name, label=label, prepare=prepare, budget=budget)


def _calls(argv: Sequence[str], env: Mapping[str, str]) -> float:
    """The milliseconds of the calls alone, which the program itself measures."""
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, env=env)
    return int(done.stdout) / 1e6


def _starts(argv: Sequence[str], env: Mapping[str, str], count: int) -> Callable[[], float]:
    return lambda: sum(milliseconds(argv, stdin=b"", env=env) for _ in range(count))
