"""Finds what a loader turns into bpf(2) calls, in a compiled BPF object."""

from collections.abc import Iterator

from ..bpf.btf import BtfError
from ..bpf.btf_types import Types
from ..values import Value
from . import elf, maps, structops
from .elf import ByteOrder, Elf, ElfError, Section
from .maps import Map
from .structops import Operations

# BPF_JMP | BPF_CALL, and its source register: 0 calls a helper.
_CALL = 0x85
_INSTRUCTION = 8
_NAMES_OF_ONE = 16
_WITH_BTF = (".maps", *structops.SECTIONS)


class Program(Value):
    """A function that a loader loads: `section` is without the `?`, which turns `autoload` off.

    `helpers` are the numbers of the helpers that it calls, as far as its own instructions and the
    object's subprograms show; `code` is its own instructions.  `static` means static in C: only its
    own file can refer to it.
    """

    __slots__ = ("autoload", "code", "helpers", "name", "section", "static")
    code: bytes
    name: str
    section: str
    autoload: bool
    static: bool
    helpers: frozenset[int]


class Object(Value):
    """One object; `source` is the name that people know it by.

    `btf` says that it has BTF, `explained` that this includes its functions.  `externs` are the
    kernel's configuration variables, and those that libbpf fills in itself.  Each of `jump_tables`
    becomes a map.
    """

    __slots__ = (
        "btf",
        "explained",
        "externs",
        "jump_tables",
        "maps",
        "operations",
        "order",
        "programs",
        "source",
    )
    source: str
    order: ByteOrder
    programs: tuple[Program, ...]
    maps: tuple[Map, ...]
    operations: tuple[Operations, ...]
    btf: bool
    explained: bool
    externs: frozenset[str]
    jump_tables: bool


def read(data: bytes, source: str) -> Object:
    """The BPF object `data`.  Raises ElfError, which says why it can't be read."""
    found = elf.parse(data)
    sections = {section.name: section for section in found.sections}
    wanting = [name for name in _WITH_BTF if name in sections]
    if wanting and ".BTF" not in sections:
        raise ElfError(
            f"it has a section {wanting[0]}, but no BTF to read it with; compile with -g"
        )
    try:
        types = Types(sections[".BTF"].data) if ".BTF" in sections else None
        return Object(
            source=source,
            order=found.order,
            programs=tuple(_programs(found)),
            maps=tuple(maps.read(found, types)),
            operations=tuple(structops.read(found, types)),
            btf=types is not None,
            explained=types is not None and ".BTF.ext" in sections,
            externs=frozenset(one.name for one in types.section(".kconfig"))
            if types
            else frozenset(),
            jump_tables=sections[".jumptables"].size > 0 if ".jumptables" in sections else False,
        )
    except BtfError as error:
        raise ElfError(f"its BTF makes no sense: {error}") from None


def _programs(found: Elf) -> Iterator[Program]:
    code = {
        section.number: section
        for section in found.sections
        if section.kind == elf.PROGBITS and section.flags & elf.EXECINSTR
    }
    shared: frozenset[int] = frozenset()
    for section in code.values():
        if section.name == ".text":
            shared |= _helpers(section.data)
    callers = {number for number, place in code.items() if _calls_text(found, place, code)}
    # Functions may have several names, but not so many that their copies take endless memory.
    left = _NAMES_OF_ONE * sum(len(place.data) for place in code.values())
    for symbol in found.symbols:
        place = code.get(symbol.section)
        if place is None or symbol.kind != elf.FUNCTION or place.name == ".text":
            continue
        own = place.data[symbol.value : symbol.value + symbol.size if symbol.size else None]
        left -= len(own)
        if left < 0:
            raise ElfError("its functions overlap")
        yield Program(
            name=symbol.name,
            section=place.name.removeprefix("?"),
            autoload=not place.name.startswith("?"),
            static=symbol.binding == elf.LOCAL,
            code=own,
            helpers=_helpers(own) | shared if symbol.section in callers else _helpers(own),
        )


def _calls_text(found: Elf, section: Section, code: dict[int, Section]) -> bool:
    relocations = found.relocations.get(section.number, ())
    return any(
        one.symbol.section in code and code[one.symbol.section].name == ".text"
        for one in relocations
    )


def _helpers(instructions: bytes) -> frozenset[int]:
    codes, registers = instructions[::_INSTRUCTION], instructions[1::_INSTRUCTION]
    found = set()
    at = codes.find(_CALL)
    while at >= 0:
        start = at * _INSTRUCTION
        # In big-endian objects the two registers' nibbles are swapped; a call has 0 in both.
        if registers[at : at + 1] == b"\0":
            found.add(instructions[start + 4 : start + _INSTRUCTION])
        at = codes.find(_CALL, at + 1)
    return frozenset(_number(one) for one in found)


def _number(immediate: bytes) -> int:
    # Helpers have numbers below 65536, which tells the byte order.
    return min(int.from_bytes(immediate, "little"), int.from_bytes(immediate, "big"))
