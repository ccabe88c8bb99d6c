"""Finds which function of an object is for which member of a kernel's struct (struct_ops).

The attach type of such a program is its member's number in the kernel's own struct (libbpf:
src/libbpf.c, bpf_map__init_kern_struct_ops), so finding it takes the kernel's BTF.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..bpf.btf_types import Types
from . import elf
from .elf import Elf

SECTIONS = (".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link")
# The suffix that CO-RE ignores: struct tcp_congestion_ops___mine is struct tcp_congestion_ops.
_FLAVOUR = re.compile(r"___.+$", re.DOTALL)


class Operations(NamedTuple):
    """A variable in a section for struct_ops, which becomes a map; `programs` are by their member.

    The map is made only if `autocreate` is set, or if the application says so.
    """

    name: str
    struct: str
    autocreate: bool
    programs: dict[str, str]


def read(found: Elf, types: Types | None) -> Iterator[Operations]:
    """Every struct_ops map of an object with these `types`.  Raises BtfError."""
    if types is None:
        return
    places = {
        (symbol.name, symbol.section): symbol.value
        for symbol in found.symbols
        if symbol.kind == elf.OBJECT
    }
    for section in found.sections:
        if section.name not in SECTIONS:
            continue
        functions = {
            place: symbol.name
            for place, symbol in found.relocations.get(section.number, ())
            if symbol.kind == elf.FUNCTION
        }
        for variable in types.section(section.name):
            struct = types.plain(variable.type)
            # Only a linker fills in the offsets in BTF.
            start = places.get((variable.name, section.number), variable.offset)
            yield Operations(
                name=variable.name,
                struct=_FLAVOUR.sub("", types.name(struct)),
                autocreate=not section.name.startswith("?"),
                programs={
                    member.name: functions[start + member.offset // 8]
                    for member in types.members(struct)
                    if start + member.offset // 8 in functions
                },
            )
