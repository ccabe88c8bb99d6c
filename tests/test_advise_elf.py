"""Reading ELF: what compilers make, and what they don't."""

import struct

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
        (b"", "no ELF file"),
        (b"#!/bin/sh\n", "no ELF file"),
        (b"\x7fELF", "cut short"),
        (b"\x7fELF" + bytes(100), "no 64-bit ELF"),
    ],
)
def test_what_is_none(data: bytes, words: str) -> None:
    with pytest.raises(ElfError, match=words):
        elf.parse(data)


@pytest.mark.parametrize(
    ("offset", "content", "words"),
    [
        (4, b"\x01", "no 64-bit ELF"),
        (18, struct.pack("<H", 62), "has no BPF"),
        (16, struct.pack("<H", 2), "no relocatable object"),
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
