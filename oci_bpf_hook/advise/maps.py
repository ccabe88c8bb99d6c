"""The maps of an object: those that it defines, and those that libbpf makes for its variables.

Rules: libbpf, src/libbpf.c: parse_btf_map_def(), bpf_object__init_global_data_maps() and
bpf_object__init_kconfig_map().
"""

from collections.abc import Iterator
from typing import NamedTuple

from ..bpf.btf_types import ARRAY, PTR, STRUCT, Types
from . import elf
from .elf import NOBITS, PROGBITS, Elf, Section

DEFINED = "defined"
LEGACY = "legacy"
VARIABLES = "variables"

ARRAY_MAP = 2
ARENA_MAP = 33
_OF_MAPS = (12, 13)
# libbpf leaves out the types of keys and values for these: from perf_event_array to arena.  For a
# queue and a stack, which have no keys, the kernel refuses them, and libbpf tries again without.
_WITHOUT_BTF = {4, 7, 8, 12, 13, 14, 15, 16, 17, 18, 22, 23, 25, ARENA_MAP}
_DATA, _RODATA, _BSS = ".data", ".rodata", ".bss"


class Map(NamedTuple):
    """`type` is the kernel's number; `inner` is a map that shows the form of the maps in this one.

    `kind` is DEFINED, LEGACY (in a section `maps`), or VARIABLES.  `btf` says whether the map is
    made with the types of its keys and values; `pinned` whether libbpf pins it by its name.
    """

    name: str
    kind: str
    type: int
    flags: int = 0
    btf: bool = False
    pinned: bool = False
    inner: "Map | None" = None


def read(found: Elf, types: Types | None) -> Iterator[Map]:
    """Every map of an object with these `types`.  Raises BtfError."""
    if types:
        for variable in types.section(".maps"):
            yield _definition(types, variable.name, variable.type)
    for section in found.sections:
        if section.name == "maps" or section.name.startswith("maps/"):
            yield from _legacy(found, section)
    for section in found.sections:
        if _has_variables(section):
            yield Map(
                name=section.name,
                kind=VARIABLES,
                type=ARRAY_MAP,
                btf=types is not None and bool(types.section(section.name)),
            )
    if types and types.section(".kconfig"):
        yield Map(name=".kconfig", kind=VARIABLES, type=ARRAY_MAP, btf=True)


def _definition(types: Types, name: str, of: int) -> Map:
    numbers, inner = {"type": 0, "map_flags": 0, "pinning": 0}, None
    described = False
    for member in types.members(types.plain(of)):
        if member.name in numbers:
            numbers[member.name] = _number(types, member.type)
        elif member.name in ("key", "value"):
            described = True
        elif member.name == "values":
            inner = _inner(types, f"{name}'s inner map", member.type)
    return Map(
        name=name,
        kind=DEFINED,
        type=numbers["type"],
        flags=numbers["map_flags"],
        btf=described and numbers["type"] not in _WITHOUT_BTF,
        pinned=numbers["pinning"] == 1,
        inner=inner if numbers["type"] in _OF_MAPS else None,
    )


def _number(types: Types, of: int) -> int:
    # __uint(type, N) declares int (*type)[N].
    pointer = types.plain(of)
    if types.kind(pointer) != PTR:
        return 0
    array = types.plain(types.target(pointer))
    return types.array(array)[1] if types.kind(array) == ARRAY else 0


def _inner(types: Types, name: str, of: int) -> Map | None:
    # __array(values, struct inner) declares struct inner *values[]; a prog_array has functions.
    array = types.plain(of)
    if types.kind(array) != ARRAY:
        return None
    pointer = types.plain(types.array(array)[0])
    if types.kind(pointer) != PTR:
        return None
    struct = types.plain(types.target(pointer))
    if types.kind(struct) != STRUCT:
        return None
    # A map in a map has no maps in it, even if these types say so.
    inner = _type_of(types, struct)
    return Map(name=name, kind=DEFINED, type=inner, btf=False)


def _type_of(types: Types, struct: int) -> int:
    for member in types.members(struct):
        if member.name == "type":
            return _number(types, member.type)
    return 0


def _legacy(found: Elf, section: Section) -> Iterator[Map]:
    # struct bpf_map_def and iproute2's struct bpf_elf_map begin with the type.
    for symbol in found.symbols:
        if symbol.section == section.number and symbol.kind in (0, elf.OBJECT) and symbol.name:
            content = section.data[symbol.value : symbol.value + 4]
            yield Map(name=symbol.name, kind=LEGACY, type=int.from_bytes(content, found.order))


def _has_variables(section: Section) -> bool:
    name = section.name
    if section.size == 0 or section.flags & elf.EXECINSTR:
        return False
    if section.kind == PROGBITS:
        return name in (_DATA, _RODATA) or name.startswith((_DATA + ".", _RODATA + "."))
    return section.kind == NOBITS and (name == _BSS or name.startswith(_BSS + "."))
