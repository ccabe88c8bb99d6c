"""ELF, as far as a BPF object needs it: its sections, symbols and relocations.

pyelftools knows the headers' layout; but its ELFFile needs a file, imports half of DWARF, and takes
longer to import than all of this.  Sections' bytes are only ever slices of the file, and tables are
unpacked here: somebody else's file may claim any size, and pyelftools takes a hundred times as long
for a symbol.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..values import Value

if TYPE_CHECKING:
    from elftools.elf.structs import ELFStructs

    from ..bpf.btf import Buffer

ByteOrder = Literal["little", "big"]

MAGIC = b"\x7fELF"
ALLOC = 2
EXECINSTR = 4
# Types of sections, as pyelftools names them.
PROGBITS = "SHT_PROGBITS"
NOBITS = "SHT_NOBITS"
_NULL = "SHT_NULL"
# Types of symbols.
OBJECT = 1
FUNCTION = 2
SECTION = 3
LOCAL = 0
_EM_BPF = 247
_ET_REL = 1
# No BPF object has so many, or is so large; a file that claims it would only cost time.
_SECTIONS_MAX = 8192
_LARGEST = 1 << 26
_LONGEST_NAME = 4096
_HEADER = _SECTION = 64
# Name, type, flags, address, offset, size, link, info, alignment, size of an entry.
_SECTION_HEADER = "IIQQQQIIQQ"
_NOBITS = 8


class ElfError(ValueError):
    """These bytes aren't a BPF object."""


class Section(NamedTuple):
    """`size` counts what NOBITS sections have only in memory; `data` doesn't contain that."""

    number: int
    name: str
    kind: str
    flags: int
    size: int
    data: bytes


class Symbol(NamedTuple):
    """An entry of the symbol table; `value` is its offset in the section numbered `section`."""

    name: str
    kind: int
    binding: int
    section: int
    value: int
    size: int


class Relocation(NamedTuple):
    """The bytes at `offset` in a section depend on `symbol`."""

    offset: int
    symbol: Symbol


class Elf(Value):
    """One object; `relocations` are by the number of the section that they apply to.

    Relocations of sections that aren't loaded, mainly of debug information and BTF, are left out.
    """

    __slots__ = ("order", "relocations", "sections", "symbols")
    order: ByteOrder
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: dict[int, tuple[Relocation, ...]]


def parse(data: bytes) -> Elf:
    """The BPF object `data`.  Raises ElfError, which says what `data` is instead."""
    from elftools.construct import ConstructError  # Not imported for --help.

    if not data.startswith(MAGIC):
        raise ElfError("it isn't an ELF file")
    try:
        return _parse(data)
    except ElfError:
        raise
    # All that pyelftools raises for headers that make no sense.
    except (ConstructError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise ElfError(f"its ELF headers make no sense ({error or type(error).__name__})") from None


def _parse(data: bytes) -> Elf:
    if len(data) < _HEADER:
        raise ElfError("it is cut short within the ELF header")
    if len(data) > _LARGEST:
        raise ElfError(f"it is larger than {_LARGEST >> 20} MiB, which no BPF object is")
    if data[4] != 2 or data[5] not in (1, 2):
        raise ElfError("it isn't a 64-bit ELF file, as BPF objects are")
    order: ByteOrder = "little" if data[5] == 1 else "big"
    structs = _structs(order)
    header = structs.Elf_Ehdr.parse(data[:_HEADER])
    # Old compilers for BPF left the machine out.
    if header["e_machine"] not in ("EM_BPF", "EM_NONE"):
        raise ElfError("it is an ELF file, but has no BPF")
    if header["e_type"] != "ET_REL":
        raise ElfError("it isn't a relocatable object, as a compiler makes it")
    if extent(data, 0) > len(data):
        raise ElfError("it is cut short: its section headers are beyond its end")
    first = header["e_shoff"]
    layout = Struct(_format(order) + _SECTION_HEADER)
    raw = list(layout.iter_unpack(data[first : first + header["e_shnum"] * _SECTION]))
    headers = _sections(data, raw, header["e_shstrndx"])
    sections = tuple(section for section, _, _ in headers)
    symbols: tuple[Symbol, ...] = ()
    for section, link, _ in headers:
        if section.kind == "SHT_SYMTAB":
            names = _Names(sections[link].data if link < len(sections) else b"")
            symbols = tuple(_symbols(section.data, names, sections, order))
    relocations: dict[int, list[Relocation]] = {}
    for section, _, target in headers:
        if section.kind in ("SHT_REL", "SHT_RELA") and _is_loaded(sections, target):
            more = _relocations(section.data, symbols, order, addends=section.kind == "SHT_RELA")
            relocations.setdefault(target, []).extend(more)
    return Elf(
        order=order,
        sections=sections,
        symbols=symbols,
        relocations={number: tuple(found) for number, found in relocations.items()},
    )


def _sections(
    data: bytes, raw: Sequence[tuple[int, ...]], named_by: int
) -> list[tuple[Section, int, int]]:
    """Each section of `data` with the numbers of two others from its header.

    `raw` are the headers, and `named_by` is the number of the section that has their names.
    """
    strings = raw[named_by]
    names = _Names(data[strings[4] : strings[4] + strings[5]])
    headers, left = [], len(data)
    for number, (at, type_, flags, _, offset, size, link, info, *_) in enumerate(raw):
        name, kind = names.at(at), _kinds().get(type_, str(type_))
        end = offset if kind in (NOBITS, _NULL) else offset + size
        if end > len(data):
            raise ElfError(f"it is cut short: its section {name!r:.64} is beyond its end")
        left -= end - offset
        if left < 0:
            # ELF forbids that, and copying each section could take any amount of memory.
            raise ElfError("its sections overlap")
        headers.append((Section(number, name, kind, flags, size, data[offset:end]), link, info))
    return headers


def _is_loaded(sections: tuple[Section, ...], number: int) -> bool:
    return number < len(sections) and bool(sections[number].flags & ALLOC)


@cache
def _kinds() -> dict[int, str]:
    from elftools.elf.enums import ENUM_SH_TYPE_BASE

    return {number: name for name, number in ENUM_SH_TYPE_BASE.items() if isinstance(number, int)}


@cache
def _structs(order: ByteOrder) -> "ELFStructs":
    from elftools.elf.structs import ELFStructs

    structs = ELFStructs(little_endian=order == "little", elfclass=64)
    structs.create_basic_structs()
    structs.create_advanced_structs("ET_REL", "EM_BPF")
    return structs


def extent(data: "Buffer", start: int) -> int:
    """Where the ELF file that begins at `start` ends, by its section headers; maybe beyond `data`.

    Raises ElfError for headers that no object has.
    """
    head = bytes(data[start : start + _HEADER])
    order: ByteOrder = "little" if head[5] == 1 else "big"
    offset = int.from_bytes(head[40:48], order)
    size, count = int.from_bytes(head[58:60], order), int.from_bytes(head[60:62], order)
    if not 0 < count <= _SECTIONS_MAX or size != _SECTION:
        raise ElfError("it has no section headers that make sense")
    end = start + offset + size * count
    headers = bytes(data[start + offset : end])
    for _, kind, _, _, place, length, *_ in Struct(_format(order) + _SECTION_HEADER).iter_unpack(
        headers[: len(headers) - len(headers) % _SECTION]
    ):
        # Compilers put the headers last; parse() will complain of what is beyond the file.
        if kind != _NOBITS and end < start + place + length <= len(data):
            end = start + place + length
    return end


def is_object(data: "Buffer", start: int) -> bool:
    """Whether the ELF header of a BPF object is at `start`."""
    head = bytes(data[start : start + _HEADER])
    if len(head) < _HEADER or head[4] != 2 or head[5] not in (1, 2):
        return False
    order: ByteOrder = "little" if head[5] == 1 else "big"
    return (int.from_bytes(head[16:18], order), int.from_bytes(head[18:20], order)) == (
        _ET_REL,
        _EM_BPF,
    )


def _symbols(
    data: bytes, names: "_Names", sections: tuple[Section, ...], order: ByteOrder
) -> Iterator[Symbol]:
    layout = Struct(_format(order) + "IBBHQQ")
    whole = len(data) - len(data) % layout.size
    for name, info, _, section, value, size in layout.iter_unpack(data[:whole]):
        named = info & 15 == SECTION and section < len(sections)
        text = sections[section].name if named else names.at(name)
        yield Symbol(text, info & 15, info >> 4, section, value, size)


def _relocations(
    data: bytes, symbols: tuple[Symbol, ...], order: ByteOrder, *, addends: bool
) -> Iterator[Relocation]:
    layout = Struct(_format(order) + ("QQQ" if addends else "QQ"))
    whole = len(data) - len(data) % layout.size
    for offset, info, *_ in layout.iter_unpack(data[:whole]):
        if info >> 32 < len(symbols):
            yield Relocation(offset, symbols[info >> 32])


def _format(order: ByteOrder) -> str:
    return "<" if order == "little" else ">"


class _Names:
    """A table of names, in which one name may be the end of another; limits how much is read.

    Raises ElfError for names that together are far longer than the table is.
    """

    def __init__(self, strings: bytes) -> None:
        self._strings = strings
        self._known: dict[int, str] = {}
        self._left = 8 * len(strings)

    def at(self, offset: int) -> str:
        """The name that begins at `offset`."""
        found = self._known.get(offset)
        if found is None:
            end = self._strings.find(b"\0", offset, offset + _LONGEST_NAME)
            text = self._strings[offset : end if end >= 0 else offset + _LONGEST_NAME]
            self._left -= len(text)
            if self._left < 0:
                raise ElfError("its names make no sense")
            found = self._known[offset] = text.decode("utf-8", "replace")
        return found
