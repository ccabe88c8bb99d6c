"""Cases: functions named `case_...` in the modules beside this one, and for which kernels each is.

A case takes a Context and passes if it returns; what it returns reaches the host as JSON.  A module
of cases is there by its name and imports nothing that a host without a machine lacks: the host
reads the names of the cases in it.
"""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple


class Context(NamedTuple):
    """The machine: the suite its kernel is from, the release, and the files handed in."""

    suite: str
    release: str
    files: Path


Case = Callable[[Context], object]

PREFIX: Final = "case_"
# The suites whose kernels have tokens.
TOKENS: Final = ("trixie", "sid", "experimental")
# The oldest of these and the newest, for what takes a machine long: what holds on both holds on the
# one between them.  That one has what depends on a kernel's numbers: grants, the guard's lists, and
# what it says of a refusal.
ENDS: Final = (TOKENS[0], TOKENS[-1])
_ONLY: Final[dict[Case, tuple[str, ...]]] = {}


def on(*suites: str) -> Callable[[Case], Case]:
    """A case for the kernels of these suites alone; without, it is for all."""

    def mark(case: Case) -> Case:
        _ONLY[case] = suites
        return case

    return mark


def modules(*, on_request: bool = False) -> list[str]:
    """The modules that have cases; those with an ON_REQUEST that is true only where that is."""
    names = (found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]))
    found = [name for name in names if name != "__main__" and _cases(_module(name))]
    return [name for name in found if on_request or not getattr(_module(name), "ON_REQUEST", False)]


def cases(module: str, suite: str) -> dict[str, Case]:
    """The cases of a module for a suite's kernel by their names, in the order of the file."""
    found = _cases(_module(module)).items()
    return {f"{module}.{name}": case for name, case in found if suite in _ONLY.get(case, (suite,))}


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{name}")


def _cases(module: ModuleType) -> dict[str, Case]:
    found = vars(module).items()
    return {name.removeprefix(PREFIX): one for name, one in found if name.startswith(PREFIX)}
