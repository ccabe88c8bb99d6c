"""The capabilities in the container's user namespace that using BPF with a token takes.

What each program type takes is in the table of `type_facts`.
"""

from .names import MAPS, PROGS
from .type_facts import NET_ADMIN, PERFMON, PROGRAMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .names import Enum

# All capabilities that using BPF with a token may need, without CAP_, and their numbers
# (linux/capability.h).
CAPABILITIES = {NET_ADMIN: 12, "SYS_ADMIN": 21, PERFMON: 38, "BPF": 39}

# Helpers that a program of any type may call only with CAP_PERFMON: trace_printk,
# get_current_task, probe_read_*, snprintf and others (Linux: kernel/bpf/helpers.c,
# bpf_base_func_proto).
PERFMON_HELPERS = frozenset((6, 35, 112, 113, 114, 115, 149, 158, 165, 175, 177))

# The map types that take CAP_NET_ADMIN beside CAP_BPF (Linux: map_create).
MAPS_WITH_NET_ADMIN = ("sockmap", "sockhash", "devmap", "devmap_hash", "xskmap")


def takes(name: str) -> tuple[str, ...]:
    """The capabilities, without CAP_, that loading a program of this type takes beside BPF."""
    return PROGRAMS[name][1] if name in PROGRAMS else ()


def programs_that_take(capability: str) -> tuple[str, ...]:
    """The program types whose loading takes this capability beside CAP_BPF."""
    return tuple(name for name, row in PROGRAMS.items() if capability in row[1])


def capabilities(masks: "Mapping[str, int]", enums: "Mapping[str, Enum]") -> tuple[str, ...]:
    """The capabilities, without CAP_, that using all of `masks` takes."""
    return ("BPF", *(name for name in (NET_ADMIN, PERFMON) if that_take(name, masks, enums)))


def that_take(
    capability: str, masks: "Mapping[str, int]", enums: "Mapping[str, Enum]"
) -> list[str]:
    """The program and map types in `masks` that take this capability beside CAP_BPF."""
    maps = MAPS_WITH_NET_ADMIN if capability == NET_ADMIN else ()
    return [
        *(name for name in _names(PROGS.option, masks, enums) if capability in takes(name)),
        *(name for name in _names(MAPS.option, masks, enums) if name in maps),
    ]


def _names(option: str, masks: "Mapping[str, int]", enums: "Mapping[str, Enum]") -> "Iterator[str]":
    mask = masks.get(option, 0)
    return (name for value, name in enums[option].names.items() if mask >> value & 1)
