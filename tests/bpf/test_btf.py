"""btf.py: the right table or a BtfError, from the real kernel's BTF and from broken ones."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf import btf
from oci_bpf_hook.bpf.btf import BtfError, enums, walk
from oci_bpf_hook.bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Enum, Kind
from oci_bpf_hook.kernel.enums import table

VMLINUX = Path("/sys/kernel/btf/vmlinux")
LATEST = table().enums(KINDS)
Order = Literal["little", "big"]
Enumerators = Sequence[tuple[str, int]]

# Documentation/bpf/btf.rst.
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = range(1, 9)
VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = (
    range(9, 20)
)


class Btf:
    """BTF in the making."""

    def __init__(self, order: Order = "little", *, wide: bool = False, header: int = 24) -> None:
        self.order = order
        self._wide = wide
        self._header = header
        self._strings = b"\0"
        self._types = b""

    def u32(self, *values: int) -> bytes:
        return b"".join((value & 0xFFFFFFFF).to_bytes(4, self.order) for value in values)

    def name(self, text: str) -> int:
        """The offset of `text` in the string section."""
        found = self._strings.find(b"\0" + text.encode() + b"\0")
        if found < 0:
            found = len(self._strings) - 1
            self._strings += text.encode() + b"\0"
        return found + 1

    def type(
        self, kind: int, name: int = 0, size: int = 0, vlen: int = 0, tail: bytes = b""
    ) -> "Btf":
        self._types += self.u32(name, kind << 24 | vlen, size) + tail
        return self

    def enum(self, name: str, enumerators: Enumerators, kind: int = 0) -> "Btf":
        kind = kind or (ENUM64 if self._wide else ENUM)
        tail = b""
        for text, value in enumerators:
            tail += self.u32(self.name(text), value)
            tail += self.u32(value >> 32) if kind == ENUM64 else b""
        size = 8 if kind == ENUM64 else 4
        return self.type(kind, self.name(name), size, len(enumerators), tail)

    def real(self, *kinds: Kind, guarded: bool = True) -> "Btf":
        """The enums of `kinds` as a kernel of today has them."""
        for kind in kinds:
            self.enum(kind.enum, enumerators(kind, guarded=guarded))
        return self

    def bytes(self) -> bytes:
        magic = (0xEB9F).to_bytes(2, self.order) + b"\1\0"
        sizes = (self._header, 0, len(self._types), len(self._types), len(self._strings))
        head = (magic + self.u32(*sizes)).ljust(self._header, b"\0")
        return head + self._types + self._strings


def enumerators(kind: Kind, *, guarded: bool = True) -> list[tuple[str, int]]:
    values = LATEST[kind.option].values
    found = [(kind.prefix + name.upper(), value) for name, value in values.items()]
    guard = f"__MAX_{kind.enum.upper()}"
    return [*found, (guard, max(values.values()) + 1)] if guarded else found


def surroundings(blob: Btf) -> Btf:
    """A type of every kind that isn't an enum, with everything that belongs to it."""
    blob.type(INT, blob.name("int"), 4, 0, blob.u32(32))
    blob.type(PTR, 0, 1)
    blob.type(ARRAY, 0, 0, 0, blob.u32(1, 1, 16))
    blob.type(
        STRUCT, blob.name("pair"), 8, 2, blob.u32(blob.name("a"), 1, 0, blob.name("b"), 1, 32)
    )
    blob.type(UNION, blob.name("either"), 4, 1, blob.u32(blob.name("a"), 1, 0))
    blob.type(FWD, blob.name("task_struct"))
    blob.type(TYPEDEF, blob.name("u32"), 1)
    blob.type(VOLATILE, 0, 1).type(CONST, 0, 1).type(RESTRICT, 0, 2)
    blob.type(FUNC_PROTO, 0, 1, 2, blob.u32(blob.name("a"), 1, 0, 0))
    blob.type(FUNC, blob.name("bpf_token_create"), 11)
    blob.type(VAR, blob.name("jiffies"), 1, 0, blob.u32(1))
    blob.type(DATASEC, blob.name(".data"), 8, 2, blob.u32(13, 0, 4, 13, 4, 4))
    blob.type(FLOAT, blob.name("double"), 8)
    blob.type(DECL_TAG, blob.name("user"), 4, 0, blob.u32(0))
    blob.type(TYPE_TAG, blob.name("rcu"), 1)
    return blob.enum("pid_type", [("PIDTYPE_PID", 0), ("PIDTYPE_TGID", 1)], ENUM)


def right(found: dict[str, Enum], kinds: Iterable[Kind] = KINDS) -> None:
    assert list(found) == [kind.option for kind in kinds]
    for kind in kinds:
        assert list(found[kind.option].values.items()) == list(LATEST[kind.option].values.items())
        assert found[kind.option].names == LATEST[kind.option].names
        assert found[kind.option].kind == kind


# ---- the running kernel's


@pytest.fixture(scope="module")
def vmlinux() -> bytes:
    if not VMLINUX.exists():
        pytest.skip(f"this kernel has no {VMLINUX} (CONFIG_DEBUG_INFO_BTF)")
    return VMLINUX.read_bytes()


def test_the_search_finds_what_the_walk_finds(vmlinux: bytes) -> None:
    walked = walk(vmlinux, KINDS)
    for kinds in (KINDS, *((kind,) for kind in KINDS), KINDS[::-1]):
        found = enums(vmlinux, kinds)
        assert set(found) == {kind.option for kind in kinds}
        for option, enum in found.items():
            assert list(enum.values.items()) == list(walked[option].values.items())


def test_the_search_alone_does_on_a_real_kernel(
    vmlinux: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The walk takes ten times as long as the interpreter's start: nobody would see it but users.
    monkeypatch.delattr(btf, "walk")
    assert enums(vmlinux, KINDS)


def test_a_kernel_with_tokens_has_what_it_takes(vmlinux: bytes) -> None:
    found = enums(vmlinux, KINDS)
    assert found[CMDS.option].values["prog_load"] == 5
    assert found[CMDS.option].values["prog_run"] == found[CMDS.option].values["prog_test_run"]
    assert found[PROGS.option].values["netfilter"] == 32
    assert not any("max" in name.split("_") for enum in found.values() for name in enum.values)


# ---- made ones


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("wide", [False, True], ids=["ENUM", "ENUM64"])
def test_both_byte_orders_and_widths(order: Order, *, wide: bool) -> None:
    blob = surroundings(Btf(order, wide=wide))
    data = surroundings(blob.real(*KINDS)).bytes()
    right(enums(data, KINDS))
    right(walk(data, KINDS))
    right(enums(data, (MAPS,)), (MAPS,))
    right(enums(data, KINDS[::-1]), KINDS[::-1])


@pytest.mark.parametrize("length", [25, 26, 32])
def test_a_longer_header_is_skipped(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Btf(header=length).real(*KINDS).bytes()
    right(walk(data, KINDS))
    monkeypatch.delattr(btf, "walk")
    right(enums(data, KINDS))


@pytest.mark.parametrize("length", [0, 8, 23, 0xFFFFFFFF])
def test_a_header_of_no_such_length_is_refused(length: int) -> None:
    data = Btf().real(*KINDS).bytes()
    for read in (enums, walk):
        with pytest.raises(BtfError, match="cut short"):
            read(data[:4] + length.to_bytes(4, "little") + data[8:], KINDS)


def test_the_strings_may_come_first() -> None:
    data = Btf().real(*KINDS).bytes()
    types_len, strings_len = (int.from_bytes(data[at : at + 4], "little") for at in (12, 20))
    head = Btf().u32(24, strings_len + 3 & ~3, types_len, 0, strings_len)
    types, strings = data[24 : 24 + types_len], data[24 + types_len :]
    turned = data[:4] + head + strings.ljust(strings_len + 3 & ~3, b"\0") + types
    right(enums(turned, KINDS))
    right(walk(turned, KINDS))


def test_a_kernel_without_guards_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = surroundings(Btf()).real(*KINDS, guarded=False).bytes()
    right(enums(data, KINDS))
    monkeypatch.delattr(btf, "walk")
    with pytest.raises(NameError):
        enums(data, KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.enum)
def test_a_missing_enum_is_named(kind: Kind) -> None:
    data = surroundings(Btf()).real(*(other for other in KINDS if other != kind)).bytes()
    with pytest.raises(BtfError, match=f"no enum {kind.enum} in it"):
        enums(data, KINDS)


@pytest.mark.parametrize("order", ["little", "big"])
def test_the_name_as_other_data_is_no_enum(order: Order) -> None:
    blob = Btf(order)
    name = blob.name("bpf_cmd")
    # As a size, a type, an array's length, a member's name, its type and offset, an enumerator's
    # name and value, and as the name of what is no enum.
    blob.type(INT, blob.name("int"), name, 0, blob.u32(name))
    blob.type(PTR, 0, name)
    blob.type(ARRAY, 0, 0, 0, blob.u32(name, name, name))
    blob.type(STRUCT, name, name, 2, blob.u32(name, name, name, name, ENUM << 24 | 3, name))
    blob.type(TYPEDEF, name, name)
    blob.type(FUNC_PROTO, 0, name, 2, blob.u32(name, ENUM << 24, name, ENUM64 << 24 | 0xFFFF))
    blob.enum("decoy", [("bpf_cmd", name), ("BPF_MAP_CREATE", 0), ("bpf_cmd", ENUM << 24)])
    blob.type(VAR, name, name, 0, blob.u32(name))
    blob.real(*KINDS)
    blob.type(DECL_TAG, name, name, 0, blob.u32(name))
    right(enums(blob.bytes(), KINDS))
    right(walk(blob.bytes(), KINDS))


@pytest.mark.parametrize("shift", [1, 2, 3])
@pytest.mark.parametrize("order", ["little", "big"])
def test_an_unaligned_record_is_no_enum(order: Order, shift: int) -> None:
    # Whole and valid, but it lies across the members of a struct.
    fake = Btf(order)
    fake.name("bpf_cmd")
    names = [name for name, _ in enumerators(CMDS)[:-1]]
    wrong = [(name, value) for value, name in enumerate(reversed(names))]
    fake.enum("bpf_cmd", [*wrong, ("__MAX_BPF_CMD", len(wrong))])
    record = bytes(shift) + fake._types
    record = record.ljust(-(-len(record) // 12) * 12, b"\0")
    blob = Btf(order)
    blob._strings = fake._strings
    blob.type(STRUCT, 0, 4, len(record) // 12, record).real(*KINDS)
    right(enums(blob.bytes(), KINDS))
    right(walk(blob.bytes(), KINDS))


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param([], id="a forward declaration"),
        pytest.param([("OTHER_A", 0), ("OTHER_B", 1)], id="foreign names"),
        pytest.param(enumerators(MAPS)[:3], id="no guard"),
        pytest.param([("BPF_PROG_LOAD", 0), ("BPF_MAP_CREATE", 5)], id="foreign values"),
        pytest.param([("BPF_PROG_LOAD", 0), ("__MAX_BPF_CMD", 7)], id="a foreign guard"),
    ],
)
def test_another_enum_of_that_name_in_front_is_passed_over(foreign: Enumerators) -> None:
    data = Btf().enum("bpf_cmd", foreign).real(*KINDS).bytes()
    right(enums(data, KINDS))


def test_the_first_of_two_is_taken() -> None:
    # As the kernel itself does.
    blob = Btf().enum("bpf_cmd", [("BPF_MAP_CREATE", 0), ("__MAX_BPF_CMD", 1)]).real(*KINDS)
    for found in (enums(blob.bytes(), KINDS), walk(blob.bytes(), KINDS)):
        assert found[CMDS.option].values == {"map_create": 0}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([("BPF_MAP_CREATE", 0), ("BPF_PROG_LOAD", 5)], id="a gap"),
        pytest.param([("BPF_MAP_CREATE", 0), ("BPF_PROG_LOAD", -1)], id="a negative value"),
        pytest.param([("BPF_MAP_CREATE", 0), ("PROG_LOAD", 1)], id="another prefix"),
        pytest.param([("BPF_A", 0), ("BPF_A", 1)], id="a name twice"),
        pytest.param([("__MAX_BPF_CMD", 0)], id="no names"),
        pytest.param([], id="nothing"),
        pytest.param([("BPF_\u00fc", 0), ("BPF_\u00df", 1)], id="names not of ASCII"),
    ],
)
@pytest.mark.parametrize("wide", [False, True], ids=["ENUM", "ENUM64"])
def test_what_makes_no_sense_is_an_error(wrong: Enumerators, *, wide: bool) -> None:
    data = Btf(wide=wide).enum("bpf_cmd", wrong).real(MAPS, PROGS, ATTACHS).bytes()
    for read in (enums, walk):
        with pytest.raises(BtfError, match="enum bpf_cmd"):
            read(data, KINDS)


def test_the_high_half_of_a_64_bit_value_counts() -> None:
    data = Btf(wide=True).enum("bpf_cmd", [("BPF_A", 0), ("BPF_B", 1 | 1 << 32)]).bytes()
    with pytest.raises(BtfError):
        enums(data, (CMDS,))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x9f\xeb",
        b"\x9f\xeb\x01\x00" + bytes(19),
        b"\x9f\xeb\x02\x00" + Btf().real(*KINDS).bytes()[4:],
        b"\x9f\xec" + Btf().real(*KINDS).bytes()[2:],
        b"\xeb\x9f" + Btf().real(*KINDS).bytes()[2:],
        b"\x7fELF" + bytes(1000),
        bytes(1000),
        b"\xff" * 1000,
        Btf().bytes(),
    ],
)
def test_what_is_no_btf(data: bytes) -> None:
    for read in (enums, walk):
        with pytest.raises(BtfError):
            read(data, KINDS)


def test_a_name_outside_the_strings_is_an_error() -> None:
    blob = Btf()
    blob.type(ENUM, blob.name("bpf_cmd"), 4, 1, blob.u32(1 << 31, 0)).real(MAPS, PROGS, ATTACHS)
    for read in (enums, walk):
        with pytest.raises(BtfError):
            read(blob.bytes(), KINDS)


def test_an_unknown_kind_of_type_stops_the_walk() -> None:
    # Nobody knows how long it is, and so nothing behind it can be trusted.
    data = Btf().type(20).real(*KINDS).bytes()
    with pytest.raises(BtfError, match="unknown kind 20"):
        walk(data, KINDS)
    right(enums(data, KINDS))


# ---- broken ones

WHOLE = {
    (order, wide): surroundings(surroundings(Btf(order, wide=wide)).real(*KINDS)).bytes()
    for order in ("little", "big")
    for wide in (False, True)
}


def never_wrong(data: bytes) -> None:
    for read in (enums, walk):
        try:
            found = read(data, KINDS)
        except BtfError:
            continue
        for option, enum in found.items():
            known = LATEST[option].values
            for name in enum.values.keys() & known.keys():
                assert enum.values[name] == known[name]


def test_every_truncation_is_an_error() -> None:
    for data in WHOLE.values():
        for length in range(len(data)):
            with pytest.raises(BtfError):
                enums(data[:length], KINDS)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(list(WHOLE.values()))))
    places = st.integers(0, 23) | st.integers(24, len(data) - 1)
    for _ in range(draw(st.integers(1, 6))):
        data[draw(places)] ^= draw(st.integers(1, 255))
    if draw(st.booleans()):
        start = draw(st.integers(0, len(data)))
        del data[start : start + draw(st.integers(1, 24))]
    return bytes(data)


@settings(deadline=None, max_examples=400)
@given(mutations())
def test_flipped_bytes_never_give_a_known_name_a_wrong_value(data: bytes) -> None:
    never_wrong(data)


@settings(deadline=None)
@given(st.sampled_from(list(WHOLE.values())), st.data())
def test_a_flipped_value_is_never_taken(data: bytes, draws: st.DataObject) -> None:
    # Straight at what matters most, where random bytes would seldom hit.
    order: Order = "little" if data[0] == 0x9F else "big"
    kind = draws.draw(st.sampled_from(KINDS))
    name = draws.draw(st.sampled_from(list(LATEST[kind.option].values)))
    strings = int.from_bytes(data[16:20], order) + 24
    full = b"\0" + (kind.prefix + name.upper()).encode() + b"\0"
    offset = data.index(full, strings) + 1 - strings
    value = LATEST[kind.option].values[name].to_bytes(4, order)
    place = data.index(offset.to_bytes(4, order) + value) + 4
    other = draws.draw(
        st.integers(0, (1 << 32) - 1).filter(lambda other: other.to_bytes(4, order) != value)
    )
    broken = data[:place] + other.to_bytes(4, order) + data[place + 4 :]
    never_wrong(broken)
    with pytest.raises(BtfError, match=f"enum {kind.enum}"):
        walk(broken, KINDS)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x9f\xeb\x01\x00", b"\xeb\x9f\x01\x00"]))
def test_random_bytes_are_an_error(data: bytes, magic: bytes) -> None:
    for read in (enums, walk):
        with pytest.raises(BtfError):
            read(magic + data, KINDS)
