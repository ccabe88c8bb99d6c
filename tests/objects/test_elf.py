"""Reading ELF: what compilers make, and what they don't."""

import struct
from collections.abc import Sequence

import pytest

from oci_bpf_hook.advise import elf
from oci_bpf_hook.advise.elf import ElfError
from tests.support.bpf import compiled


@pytest.mark.parametrize("by", ["clang", "clang-be", "gcc"])
def test_what_compilers_make(by: str) -> None:
    found = elf.parse(compiled("variables", by=by))
    assert found.order == ("big" if by == "clang-be" else "little")
    sections = {section.name: section for section in found.sections}
    assert sections["socket"].flags & elf.EXECINSTR
    assert sections["license"].data.rstrip(b"\0") == b"GPL"
    assert (sections[".bss"].kind, sections[".bss"].size) == (elf.NOBITS, 4)
    (function,) = (symbol for symbol in found.symbols if symbol.kind == elf.FUNCTION)
    assert function.name == "variables"
    assert function.section == sections["socket"].number
    assert function.size == len(sections["socket"].data)
    used = {one.symbol.name for one in found.relocations[sections["socket"].number]}
    assert {"data", "rodata", "bss"} <= used | {name.lstrip(".") for name in used}


def changed(offset: int, content: bytes) -> bytes:
    data = bytearray(compiled("variables"))
    data[offset : offset + len(content)] = content
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it isn't an ELF file"),
        (b"#!/bin/sh\n", "it isn't an ELF file"),
        (b"\x7fELF", "cut short"),
        (b"\x7fELF" + bytes(100), "it isn't a 64-bit ELF"),
    ],
)
def test_what_is_none(data: bytes, words: str) -> None:
    with pytest.raises(ElfError, match=words):
        elf.parse(data)


@pytest.mark.parametrize(
    ("offset", "content", "words"),
    [
        (4, b"\x01", "it isn't a 64-bit ELF"),
        (18, struct.pack("<H", 62), "has no BPF"),
        (16, struct.pack("<H", 2), "it isn't a relocatable object"),
        (40, struct.pack("<Q", 1 << 40), "cut short"),
        (58, struct.pack("<H", 40), "make sense"),
        (60, struct.pack("<H", 0), "make sense"),
        (60, struct.pack("<H", 9000), "make sense"),
    ],
)
def test_headers_that_make_no_sense(offset: int, content: bytes, words: str) -> None:
    with pytest.raises(ElfError, match=words):
        elf.parse(changed(offset, content))


def test_cut_short() -> None:
    data = compiled("variables")
    for length in range(0, len(data), 97):
        with pytest.raises(ElfError):
            elf.parse(data[:length])


def test_extent() -> None:
    data = compiled("variables")
    assert elf.extent(data, 0) == len(data)
    assert elf.extent(b"abc" + data + b"def", 3) == 3 + len(data)
    assert elf.is_object(b"abc" + data, 3)
    assert not elf.is_object(b"abc" + data, 2)


BEFORE = 64


def made(content: bytes, sections: Sequence[tuple[int, int, int, int, int]]) -> bytes:
    """An object with `content` behind its header, and behind that the headers of these sections.

    Each has its name, type, offset in `content`, size and link; the second has the names.
    """
    fields = (1, 247, 1, 0, 0, BEFORE + len(content), 0, 64, 0, 0, 64, len(sections), 1)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    headers = (
        struct.pack("<IIQQQQIIQQ", name, kind, 2, 0, BEFORE + at, size, link, 0, 1, 0)
        for name, kind, at, size, link in sections
    )
    return ident + struct.pack("<HHIQQQIHHHHHH", *fields) + content + b"".join(headers)


NULL, PROGBITS, SYMTAB, STRTAB = 0, 1, 2, 3


def test_sections_that_overlap() -> None:
    """Thousands of them would be thousands of copies of a file."""
    content = bytes(1000)
    names = (0, STRTAB, 0, 10, 0)
    fine = [(0, NULL, 0, 0, 0), names, (0, PROGBITS, 10, 990, 0)]
    assert len(elf.parse(made(content, fine)).sections) == 3
    many = fine + [(0, PROGBITS, 1, 999, 0)] * 8000
    with pytest.raises(ElfError, match="overlap"):
        elf.parse(made(content, many))


def test_names_without_an_end() -> None:
    """Each symbol's name is the end of the one before: more text than anybody has memory."""
    table, count = bytes(1) + b"a" * 100_000, 40_000
    symbols = b"".join(struct.pack("<IBBHQQ", number, 2, 0, 1, 0, 8) for number in range(count))
    content = table + symbols
    sections = [
        (0, NULL, 0, 0, 0),
        (0, STRTAB, 0, len(table), 0),
        (0, SYMTAB, len(table), len(symbols), 1),
    ]
    with pytest.raises(ElfError, match="names make no sense"):
        elf.parse(made(content, sections))


def test_names_that_many_have() -> None:
    """Local labels are called the same, and a name may be the end of another."""
    table = b"\0.text\0label\0"
    symbols = struct.pack("<IBBHQQ", 7, 2, 0, 1, 0, 8) * 1000
    symbols += struct.pack("<IBBHQQ", 8, 2, 0, 1, 0, 8)
    sections = [
        (0, NULL, 0, 0, 0),
        (0, STRTAB, 0, len(table), 0),
        (0, SYMTAB, len(table), len(symbols), 1),
    ]
    found = elf.parse(made(table + symbols, sections)).symbols
    assert [one.name for one in found] == ["label"] * 1000 + ["abel"]


def test_larger_than_any() -> None:
    with pytest.raises(ElfError, match="larger than 64 MiB"):
        elf.parse(compiled("variables") + bytes(1 << 26))
