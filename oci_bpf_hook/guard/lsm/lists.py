"""Makes the guard's lists for the running kernel: what a confined program may be and may call.

kfuncs.json has them by names, with a reason for each: kernel functions that may be called, helpers
that are closed, and types of programs that may be loaded at all.  The kernel knows a kernel
function by the number of its type in BTF, which differs between kernels; a helper's number is ABI.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...bpf.btf_types import ENUM, FUNC, Types
from ...bpf.capabilities import programs_that_take
from ...bpf.names import Enum
from ...bpf.type_facts import PERFMON
from ...errors import KERNEL_CANNOT, HookError, Problem
from ...kernel import enums as kernel
from ...values import Value

FILE = Path(__file__).parent / "kfuncs.json"
# A BPF object has the machine's byte order; contrib/build-guard makes one of each.
OBJECT = Path(__file__).parent / f"guard.bpf{'el' if sys.byteorder == 'little' else 'eb'}.o"
ALL = "all"
# How many helpers guard.bpf.c has room for.
HELPERS = 1024


class Lists(Value):
    """What is loaded into the guard's maps, mostly masks with a bit for each type of program.

    `types` are the types that may be loaded at all, and `perfmon` those that take CAP_PERFMON.
    `kfuncs` has, by BTF id, the types that may call a kernel function.  `helpers` has, by number,
    the types that may not call a helper, and those that need CAP_PERFMON for it.  `map_types` has a
    bit for each type of map that may be made, `capabilities` for each capability that counts, and
    `loads` for each mode of load instructions that is refused after verification.  `digest` is
    digest()'s.
    """

    __slots__ = (
        "capabilities",
        "digest",
        "helpers",
        "kfuncs",
        "loads",
        "map_types",
        "perfmon",
        "types",
    )
    capabilities: int
    digest: bytes
    helpers: Mapping[int, tuple[int, int]]
    kfuncs: Mapping[int, int]
    loads: int
    map_types: int
    perfmon: int
    types: int


def digest() -> bytes:
    """SHA-256 of the object and the lists of this version.  Raises HookError (KERNEL_CANNOT)."""
    try:
        return hashlib.sha256(OBJECT.read_bytes() + FILE.read_bytes()).digest()
    except FileNotFoundError:
        raise HookError(
            KERNEL_CANNOT,
            Problem(
                f"the guard's object {OBJECT} is missing",
                hint="it is in the deb, the RPM and the image, and in a checkout `make guard` "
                "builds it with clang",
            ),
        ) from None


def data() -> dict[str, Any]:
    """The content of kfuncs.json."""
    loaded: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return loaded


@functools.cache
def types() -> Types:
    """The types of the running kernel.  They are kept, since decoding them takes long.

    Raises OSError or ValueError if the kernel has no BTF.
    """
    return Types(kernel.btf_in())


def lists(those: Types, programs: Enum, maps: Enum) -> Lists:
    """The lists for the kernel that has these types, `programs` and `maps`.

    Names that the kernel doesn't have are left out; a helper of the kernel's that isn't in
    kfuncs.json is closed.  Raises HookError (KERNEL_CANNOT).
    """
    loaded = data()
    allowed = _allowed(loaded["types"])
    counting = loaded["capabilities"]
    known = helpers(those).values()
    if max(known) >= HELPERS:
        raise HookError(
            KERNEL_CANNOT,
            f"this kernel has helpers up to number {max(known)}, and the guard knows {HELPERS}",
        )
    every = _mask(allowed, programs)
    closed = {number: every for number in known if number > loaded["newest_helper"]}
    closed |= dict.fromkeys(loaded["others"].values(), every)
    for one in loaded["helpers"].values():
        if one["closed"]:
            of = allowed if one["types"] == ALL else one["types"]
            closed[one["number"]] = _mask(of, programs)
    names = functions(those, loaded["kfuncs"])
    perfmon = set(loaded["perfmon"].values())
    return Lists(
        capabilities=sum(1 << counting[name]["number"] for name in _allowed(counting)),
        digest=digest(),
        helpers={
            number: (closed.get(number, 0), every if number in perfmon else 0)
            for number in {*closed, *perfmon}
        },
        kfuncs={
            number: _mask(loaded["kfuncs"][name]["types"], programs)
            for number, name in names.items()
        },
        loads=sum(1 << mode for mode in loaded["loads"].values()),
        map_types=_mask(_allowed(loaded["maps"]), maps),
        perfmon=_mask(programs_that_take(PERFMON), programs),
        types=every,
    )


def functions(those: Types, wanted: Iterable[str]) -> dict[int, str]:
    """The kernel's functions of these names, by the numbers of their types.

    A name may stand for several functions; only one of them is registered and can be called.
    """
    return {number: name for name in wanted for number in those.named(name, FUNC)}


def helpers(those: Types) -> dict[str, int]:
    """The kernel's helpers by name, without the enum's last, which isn't one (enum bpf_func_id).

    Raises HookError (KERNEL_CANNOT).
    """
    found = those.named("bpf_func_id", ENUM)
    if not found:
        raise HookError(KERNEL_CANNOT, "this kernel's BTF doesn't say which helpers it has")
    prefix = "BPF_FUNC_"
    return {
        name.removeprefix(prefix): value
        for name, value in those.enumerators(found[0]).items()
        if name.startswith(prefix)
    }


def _allowed(those: Mapping[str, Any]) -> list[str]:
    return [name for name, one in those.items() if one["allowed"]]


def _mask(names: Iterable[str], programs: Enum) -> int:
    values = (programs.values[name] for name in names if name in programs.values)
    return sum(1 << value for value in values)
