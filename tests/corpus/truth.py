"""The verdicts on a whole corpus."""

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Final, NamedTuple, TypeVar

from tests.support.tokens import Loads

from .check import Verdict, Whole, check, on_the_host

# Unions of two, always the same ones.
_PAIRS: Final = 24
_Outcome = TypeVar("_Outcome")


class Truth(NamedTuple):
    """What came of `built` objects: a verdict on each that this kernel loads, and on pairs.

    `refused` are the names of the others.
    """

    built: int
    refused: Sequence[str]
    wholes: Sequence[Whole]
    verdicts: Sequence[Verdict]
    pairs: Sequence[Verdict]

    @property
    def tried(self) -> int:
        """How many objects this kernel loads, or some of whose programs."""
        return len(self.verdicts)

    @property
    def right(self) -> int:
        """For how many of them the bits are right."""
        return sum(verdict.right for verdict in self.verdicts)

    def __str__(self) -> str:
        pairs = sum(pair.right for pair in self.pairs)
        capable = sum(not verdict.capabilities for verdict in self.verdicts)
        return (
            f"{self.built} objects, of which this kernel loads {self.tried}: the bits are right "
            f"for {self.right}, the capabilities for {capable}; {pairs} of {len(self.pairs)} "
            "unions of two are right"
        )


def truth(paths: Sequence[Path]) -> Truth:
    """The verdicts on the objects `paths`, as many at once as there are processors."""
    found = _spread(paths, on_the_host, host=True)
    refused = [path.stem for path, one in zip(paths, found, strict=True) if one is None]
    wholes = [one for one in found if one is not None]
    verdicts = _spread([[whole] for whole in wholes], check)
    right = [whole for whole, verdict in zip(wholes, verdicts, strict=True) if verdict.right]
    chosen = random.Random(0)
    pairs = _spread([chosen.sample(right, 2) for _ in range(_PAIRS)], check)
    return Truth(len(paths), refused, wholes, verdicts, pairs)


_Item = TypeVar("_Item")


def _spread(
    items: Sequence[_Item], function: Callable[[Loads, _Item], _Outcome], *, host: bool = False
) -> list[_Outcome]:
    count = os.cpu_count() or 1
    free: SimpleQueue[Loads] = SimpleQueue()

    def run(item: _Item) -> _Outcome:
        loads = free.get()
        try:
            return function(loads, item)
        finally:
            free.put(loads)

    with ExitStack() as stack:
        for _ in range(count):
            free.put(stack.enter_context(Loads(host=host)))
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, items))
