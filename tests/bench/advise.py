"""`oci-bpf-hook advise`: a hundred objects against the start of the command alone."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from tests.corpus.build import packaged

from .samples import Candidate, Group, measure, milliseconds

_ROOT: Final = Path(__file__).parents[2]
_ENVIRONMENT: Final = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT)}
_COMMAND: Final = (sys.executable, "-m", "oci_bpf_hook")
_MANY: Final = 100
_BUDGET: Final = 10.0


def advise(directory: Path, *, rounds: int) -> Group:
    """The command's time for Debian's objects, which are written into the `directory`."""
    paths = []
    for number, (name, data) in enumerate(islice(cycle(list(packaged())), _MANY)):
        path = directory / f"{number}-{name}.o"
        path.write_bytes(data)
        paths.append(str(path))

    def candidate(
        name: str, label: str, arguments: Sequence[str], budget: float | None = None
    ) -> Candidate:
        def prepare(_stack: ExitStack) -> Callable[[], float]:
            return lambda: milliseconds([*_COMMAND, *arguments], stdin=b"", env=_ENVIRONMENT)

        return Candidate(name=name, label=label, prepare=prepare, budget=budget)

    return measure(
        "advise",
        "oci-bpf-hook advise",
        [
            candidate("start", "the command's start alone", ["--version"]),
            candidate("help", "advise --help, which reads no object", ["advise", "--help"]),
            candidate("one", "one object", ["advise", paths[0]]),
            candidate("many", f"{_MANY} objects", ["advise", *paths], _BUDGET),
        ],
        rounds=rounds,
    )
