"""Objects with something wrong in them: an answer or an ElfError, and soon."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci_bpf_hook.advise import advice, embedded, objects
from oci_bpf_hook.advise.elf import ElfError
from oci_bpf_hook.bpf.btf import BtfError
from oci_bpf_hook.bpf.btf_types import struct_members
from oci_bpf_hook.formats import advised
from tests.objects.test_advice import KERNEL
from tests.support.bpf import compiled

NAMES = ("pinned", "flavour", "kconfig", "functions", "choices")
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1)
# What compiles them once isn't what is to be fast.
SLOW = settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def read(data: bytes) -> None:
    """What the command does with the file `data`."""
    found = []
    for start, content in embedded.find(data):
        try:
            found.append(objects.read(content, str(start)))
        except ElfError:
            continue
    needs = advice.advise(found, advice.DEFAULTS, KERNEL)
    for form in advised.FORMS:
        advised.render(form, needs, KERNEL.names, "name")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real object with some of its numbers changed, some bytes elsewhere, or its end gone."""
    by = draw(st.sampled_from(("clang", "clang-be")))
    data = bytearray(compiled(draw(st.sampled_from(NAMES)), by=by))
    order = "<" if by == "clang" else ">"
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data) - 8) | st.integers(0, 63))
        match draw(st.integers(0, 3)):
            case 0:
                number = draw(st.sampled_from(NUMBERS))
                size, code = draw(st.sampled_from(((2, "H"), (4, "I"), (8, "Q"))))
                data[at : at + size] = struct.pack(order + code, number & ((1 << 8 * size) - 1))
            case 1:
                data[at] = draw(st.integers(0, 255))
            case 2:
                other = draw(st.integers(0, len(data) - 64))
                data[at : at + 64] = data[other : other + 64]
            case _:
                del data[draw(st.integers(max(at, 64), len(data))) :]
                data += bytes(8)
    return bytes(data)


@SLOW
@given(mutated())
def test_mutated_objects(data: bytes) -> None:
    read(data)


@SLOW
@given(mutated())
def test_mutated_headers(data: bytes) -> None:
    """The same where the object is in another file, and its sections make some sense."""
    read(b"before it" + data + b"behind it")


@SLOW
@given(st.binary(max_size=300))
def test_anything(data: bytes) -> None:
    read(data)
    read(b"\x7fELF\x02\x01\x01" + data)
    with pytest.raises(ElfError):
        objects.read(data, "")


@SLOW
@given(st.data())
def test_a_mutated_kernel(choose: st.DataObject) -> None:
    """The BTF of a kernel, which --btf may name any file for."""
    data = bytearray(objects_types())
    for _ in range(choose.draw(st.integers(1, 8))):
        at = choose.draw(st.integers(0, len(data) - 1))
        data[at] = choose.draw(st.integers(0, 255))
    for name in ("tcp_congestion_ops___short", "inner", "int", ""):
        try:
            members = struct_members(bytes(data), name)
        except BtfError:
            continue
        assert members is None or members


def objects_types() -> bytes:
    """BTF of an object, which is as good as a kernel's and smaller."""
    data = compiled("flavour")
    start = data.index(b"\x9f\xeb\x01\x00")
    header, types, types_len, strings, strings_len = struct.unpack_from("<5I", data, start + 4)
    return data[start : start + header + max(types + types_len, strings + strings_len)]
