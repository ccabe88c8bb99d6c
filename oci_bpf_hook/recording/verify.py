"""Verifies that the needs from a recording are enough, and that each bit of them is needed.

The command is run again, first with exactly these bits and then without each of them.  Two runs
count as the same if they exit alike and get the same kinds of maps and programs, apart from probes.
"""

from collections.abc import Callable, Iterator, Mapping

from ..advise.needs import CAPABILITY, Needs
from ..bpf.names import ATTACHS, CMDS, MAPS, PROGS, Enum
from ..values import Value
from .call import BTF_LOAD
from .learn import attach_type_is_optional
from .recording import OK, Recording

# Runs the command with these masks, and returns the recording.
Run = Callable[[Mapping[str, int]], Recording]
# A kind of call: the numbers of its command and types, and whether it has BTF.
_Kind = tuple[int, int | None, int | None, int | None, bool]


class Verdict(Value):
    """The result of a run without one bit; `why` is empty if nothing changed."""

    __slots__ = ("name", "option", "why")
    option: str
    name: str
    why: str


def enough(first: Recording, needs: Needs, run: Run, enums: Mapping[str, Enum]) -> str:
    """What changes from `first` with the `needs` alone; empty if nothing does."""
    return changed(first, run(needs.masks(enums)), enums)


def verdicts(
    first: Recording, needs: Needs, run: Run, enums: Mapping[str, Enum]
) -> Iterator[Verdict]:
    """What changes without each bit of `needs`."""
    for option, names in needs.lists(enums).items():
        for name in names if option != CAPABILITY else ():
            less = needs.without([(option, name)])
            why = changed(first, run(less.masks(enums)), enums)
            yield Verdict(option=option, name=name, why=why)


def changed(first: Recording, other: Recording, enums: Mapping[str, Enum]) -> str:
    """How `other` differs from `first`, in words; empty if it doesn't."""
    found = []
    if first.exit != other.exit:
        found.append(f"it exits with {other.exit} instead of {first.exit}")
    # Without its probe libbpf loads such programs with 0: they are loaded all the same.
    free = {
        entry.prog_type for entry, _ in first.delegable() if attach_type_is_optional(entry, enums)
    }
    lost = _got(first, free, enums) - _got(other, free, enums)
    if lost:
        what = ", ".join(sorted(_words(kind, enums) for kind in lost))
        found.append(f"it doesn't get {what}")
    return " and ".join(found)


def _got(
    recording: Recording, free: set[int | None], enums: Mapping[str, Enum]
) -> frozenset[_Kind]:
    """The kinds of calls that succeeded: command and types, without optional attach types."""
    found = set()
    for entry, _ in recording.delegable():
        # Whether BTF was loaded shows in the maps and programs that have it.
        if entry.result in (OK, None) and not entry.probe and entry.cmd != BTF_LOAD:
            attach = entry.attach_type
            if entry.prog_type in free and (attach == 0 or attach_type_is_optional(entry, enums)):
                attach = None
            found.add((entry.cmd, entry.map_type, entry.prog_type, attach, entry.btf))
    return frozenset(found)


def _words(kind: _Kind, enums: Mapping[str, Enum]) -> str:
    options = (CMDS.option, MAPS.option, PROGS.option, ATTACHS.option)
    *numbers, btf = kind
    words = (
        enums[option].names.get(number, str(number))
        for option, number in zip(options, numbers, strict=True)
        if number is not None
    )
    return " ".join((*words, "with BTF") if btf else words)
