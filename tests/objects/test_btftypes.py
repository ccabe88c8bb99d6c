"""The types of objects and of this kernel."""

import struct
from pathlib import Path

import pytest

from oci_bpf_hook.advise import elf
from oci_bpf_hook.bpf.btf import BtfError
from oci_bpf_hook.bpf.btf_types import ARRAY, PTR, STRUCT, Types, struct_members
from oci_bpf_hook.kernel.enums import VMLINUX
from tests.support.bpf import compiled


def types_of(name: str, by: str) -> Types:
    found = elf.parse(compiled(name, by=by))
    (section,) = (section for section in found.sections if section.name == ".BTF")
    return Types(section.data)


@pytest.mark.parametrize("by", ["clang", "clang-be"])
def test_an_object(by: str) -> None:
    types = types_of("pinned", by)
    variables = {one.name: one for one in types.section(".maps")}
    assert variables.keys() == {"filled", "outer", "obh_pinned"}
    struct = types.plain(variables["outer"].type)
    assert types.kind(struct) == STRUCT
    members = {one.name: one for one in types.members(struct)}
    assert list(members) == ["type", "key", "max_entries", "values"]
    pointer = types.plain(members["type"].type)
    assert types.kind(pointer) == PTR
    assert types.array(types.target(pointer))[1] == 13
    values = types.plain(members["values"].type)
    assert types.kind(values) == ARRAY
    assert types.name(types.plain(types.target(types.array(values)[0]))) == "inner"
    assert types.section(".none") == []


def test_what_is_not_there() -> None:
    types = types_of("pinned", "clang")
    with pytest.raises(BtfError, match="doesn't exist"):
        types.name(1 << 20)
    with pytest.raises(BtfError, match="of the expected kind"):
        types.members(0)


def test_cut_short_and_unknown() -> None:
    found = elf.parse(compiled("pinned"))
    (data,) = (section.data for section in found.sections if section.name == ".BTF")
    with pytest.raises(BtfError):
        Types(data[:-1])
    with pytest.raises(BtfError, match="unknown kind"):
        Types(data[: 24 + 4] + b"\0\0\0\x1f" + data[24 + 8 :])


def test_a_few_bytes_that_say_much() -> None:
    """65,535 variables of one struct of 3,000 members: two hundred million of them."""
    names = b"\0.maps\0x\0"
    member = struct.pack("<III", 7, 0, 0)
    types = (
        struct.pack("<III", 7, STRUCT << 24 | 3000, 4)
        + member * 3000
        + struct.pack("<IIII", 7, 14 << 24, 1, 1)
        + struct.pack("<III", 1, 15 << 24 | 65535, 0)
        + struct.pack("<III", 2, 0, 0) * 65535
    )
    lengths = (0, len(types), len(types), len(names))
    found = Types(struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, *lengths) + types + names)
    variables = found.section(".maps")
    assert len(variables) == 65535
    with pytest.raises(BtfError, match="endlessly"):
        [found.members(one.type) for one in variables]


def test_structs_of_this_kernel() -> None:
    """What a search finds is what a walk through every type does."""
    data = Path(VMLINUX).read_bytes()
    types = Types(data)
    names = ("tcp_congestion_ops", "bpf_dummy_ops", "task_struct", "sk_buff")
    walked: dict[str, list[str]] = {}
    for number in range(1, len(types)):
        if types.kind(number) == STRUCT and types.name(number) in names:
            walked.setdefault(types.name(number), [one.name for one in types.members(number)])
    for name in names:
        assert struct_members(data, name) == walked[name]
    assert walked["tcp_congestion_ops"][:2] == ["ssthresh", "cong_avoid"]
    assert struct_members(data, "no_such_struct_in_here") is None
    assert struct_members(data, "") is None
