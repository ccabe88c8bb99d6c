"""Taking union bpf_attr apart."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.recording import call as attr

TOKEN = 1 << 16
CALL_112 = struct.pack("=BBhi", 0x85, 0, 0, 112)
CALL_FUNCTION = struct.pack("=BBhi", 0x85, 0x10, 0, 7)
EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)


def filled(**fields: tuple[str, int, object]) -> bytes:
    """A union with values at their offsets: name=(format, offset, value)."""
    union = bytearray(168)
    for form, offset, value in fields.values():
        struct.pack_into(f"={form}", union, offset, value)
    return bytes(union)


def decode(cmd: int, union: bytes, instructions: bytes = b"") -> attr.Call:
    return attr.decode(cmd, union, pid=1, tid=2, instructions=instructions)


def test_map_create() -> None:
    union = filled(
        map_type=("I", 0, 9),
        key_size=("I", 4, 8),
        value_size=("I", 8, 16),
        max_entries=("I", 12, 32),
        map_flags=("I", 16, TOKEN | 1),
        name=("16s", 28, b"flows"),
    )
    call = decode(attr.MAP_CREATE, union)
    assert (call.map_type, call.name, call.token, call.shape) == (9, "flows", True, (8, 16, 32, 1))
    assert (call.pid, call.tid, call.prog_type, call.result) == (1, 2, None, None)
    assert call.ended(-1).result == -1


def test_prog_load() -> None:
    union = filled(
        prog_type=("I", 0, 6),
        insn_cnt=("I", 4, 3),
        insns=("Q", 8, 0x7F0000),
        prog_flags=("I", 44, 1 << 5),
        name=("16s", 48, b"drop"),
        expected_attach_type=("I", 68, 37),
        prog_btf_fd=("I", 72, 5),
    )
    assert attr.instructions_at(attr.PROG_LOAD, union) == (0x7F0000, 24)
    assert attr.instructions_at(attr.MAP_CREATE, union) == (0, 0)
    call = decode(attr.PROG_LOAD, union, CALL_112 + CALL_FUNCTION + EXIT)
    assert (call.prog_type, call.attach_type, call.name) == (6, 37, "drop")
    assert (call.token, call.shape, call.helpers) == (False, (3, 1, 1 << 5), (112,))
    assert call.btf
    assert call.instructions == CALL_112 + CALL_FUNCTION + EXIT


def test_a_long_program() -> None:
    union = filled(prog_type=("I", 0, 6), insn_cnt=("I", 4, 0xFFFFFFFF), insns=("Q", 8, 1))
    address, size = attr.instructions_at(attr.PROG_LOAD, union)
    assert (address, size) == (1, 8 << 16), "only so much of it is read"
    call = decode(attr.PROG_LOAD, union, EXIT * 9 + CALL_112 + b"odd")
    assert (call.instructions, call.helpers) == (EXIT * 9 + CALL_112, (112,))


def test_btf() -> None:
    union = filled(btf_size=("I", 16, 81), btf_flags=("I", 32, TOKEN))
    assert decode(attr.BTF_LOAD, union).shape == (81,)
    assert decode(attr.BTF_LOAD, union).token
    assert decode(attr.BTF_GET_FD_BY_ID, filled(open_flags=("I", 8, TOKEN))).token
    assert not decode(attr.TOKEN_CREATE, filled(bpffs_fd=("I", 8, TOKEN))).token


def test_attach_types_of_other_commands() -> None:
    assert decode(28, filled(attach_type=("I", 8, 46))).attach_type == 46
    assert decode(2, filled(attach_type=("I", 8, 46))).attach_type is None


def test_what_cannot_be_read() -> None:
    for cmd in (*attr.WITH_TOKEN, attr.TOKEN_CREATE, 99):
        call = decode(cmd, b"")
        assert (call.map_type, call.prog_type, call.attach_type, call.token) == (None,) * 3 + (
            False,
        )


def test_commands() -> None:
    assert attr.command(5) == 5
    # With common attributes, and from a caller that left the upper half of the register full.
    assert attr.command(1 << 16 | 5) == 5
    assert attr.command(0xDEAD << 32 | 18) == 18
    assert attr.command((1 << 64) - 1) == 0xFFFFFFFF


@settings(deadline=None)
@given(st.integers(0, 1 << 32), st.binary(max_size=300), st.binary(max_size=100))
def test_anything(cmd: int, union: bytes, instructions: bytes) -> None:
    call = decode(attr.command(cmd), union, instructions)
    address, size = attr.instructions_at(call.cmd, union)
    assert 0 <= address < 1 << 64
    assert 0 <= size <= 8 << 16
