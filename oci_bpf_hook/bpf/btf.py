"""Reads BPF's enums from BTF, the kernel's own description of its types.

`/sys/kernel/btf/vmlinux` has 5 MB and 126,000 types; reading all of them in Python takes
ten times as long as the interpreter's start.  So `enums` searches the string section for each
enum's name, then the types for a record with that name, and believes the record only if
everything about it is right (`enumerators`).  If no record is right it reads every type.
Both ways give the first enum of that name, as the kernel's own search does (Linux:
kernel/bpf/inode.c, find_bpffs_btf_enums).

The data may be hostile: whatever is in it, the result is the right table or a BtfError.  The
format is described in Documentation/bpf/btf.rst.
"""

from ..values import Value
from .enumerators import NamesError, make_enum
from .names import Enum, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from mmap import mmap
    from typing import Literal, TypeAlias

    ByteOrder = Literal["little", "big"]
    Buffer: TypeAlias = bytes | bytearray | mmap


_MAGIC = 0xEB9F
_HEADER = 24
_KIND_ENUM = 6
_KIND_ENUM64 = 19
# How many bytes follow a type's 12-byte record, by its kind: a fixed number, and a number for each
# of its vlen members.
TAIL = {
    1: (4, 0),  # INT
    2: (0, 0),  # PTR
    3: (12, 0),  # ARRAY
    4: (0, 12),  # STRUCT
    5: (0, 12),  # UNION
    6: (0, 8),  # ENUM
    7: (0, 0),  # FWD
    8: (0, 0),  # TYPEDEF
    9: (0, 0),  # VOLATILE
    10: (0, 0),  # CONST
    11: (0, 0),  # RESTRICT
    12: (0, 0),  # FUNC
    13: (0, 8),  # FUNC_PROTO
    14: (4, 0),  # VAR
    15: (0, 12),  # DATASEC
    16: (0, 0),  # FLOAT
    17: (4, 0),  # DECL_TAG
    18: (0, 0),  # TYPE_TAG
    19: (0, 12),  # ENUM64
}


class BtfError(ValueError):
    """These bytes are not BTF, or not the BTF of a kernel with these enums."""


class Layout(Value):
    """The byte order, and the offsets of the two sections in the data."""

    __slots__ = ("order", "strings", "strings_end", "types", "types_end")
    order: "ByteOrder"
    types: int
    types_end: int
    strings: int
    strings_end: int


def enums(data: "Buffer", kinds: "Sequence[Kind]") -> dict[str, Enum]:
    """The enums of `kinds` in the BTF `data`, by their option's name.

    Raises BtfError if `data` is not BTF or lacks one of them.
    """
    layout = layout_of(data)
    found: dict[str, Enum] = {}
    for kind in kinds:
        enum = _search(data, layout, kind)
        if enum is None:
            return walk(data, kinds)
        found[kind.option] = enum
    return found


def walk(data: "Buffer", kinds: "Sequence[Kind]") -> dict[str, Enum]:
    """The same as `enums`, found by reading every type, which is slow but misses nothing."""
    layout = layout_of(data)
    wanted = {kind.enum: kind for kind in kinds}
    found: dict[str, Enum] = {}
    why: dict[str, str] = {}
    for position, type_kind in _types(data, layout):
        if type_kind not in (_KIND_ENUM, _KIND_ENUM64):
            continue
        kind = wanted.get(string(data, layout, _u32(data, layout, position)))
        if kind is None or kind.option in found:
            continue
        try:
            # Kernels before 6.9 have no guard at the end of most of these enums.
            found[kind.option] = _enum_at(data, layout, position, kind, guarded=False)
        except NamesError as error:  # It is a forward declaration, or another enum of that name.
            why[kind.option] = str(error)
    missing = [
        why.get(kind.option, f"there is no enum {kind.enum} in it")
        for kind in kinds
        if kind.option not in found
    ]
    if missing:
        raise BtfError("; ".join(missing))
    return found


def layout_of(data: "Buffer") -> Layout:
    """The layout of the BTF `data`.  Raises BtfError."""
    if len(data) < _HEADER:
        raise BtfError("it is too short for BTF")
    head = bytes(data[:_HEADER])
    order: ByteOrder = "little" if int.from_bytes(head[:2], "little") == _MAGIC else "big"
    if int.from_bytes(head[:2], order) != _MAGIC or head[2] != 1:
        raise BtfError("it isn't BTF of version 1")
    length, types, types_len, strings, strings_len = (
        int.from_bytes(head[at : at + 4], order) for at in range(4, _HEADER, 4)
    )
    layout = Layout(
        order=order,
        types=length + types,
        types_end=length + types + types_len,
        strings=length + strings,
        strings_end=length + strings + strings_len,
    )
    if length < _HEADER or max(layout.types_end, layout.strings_end) > len(data):
        raise BtfError("it is cut short")
    return layout


def _search(data: "Buffer", layout: Layout, kind: Kind) -> Enum | None:
    """The first enum named `kind.enum` that passes every check, or None."""
    needle = b"\0" + kind.enum.encode("ascii") + b"\0"
    at = data.find(needle, layout.strings, layout.strings_end)
    if at < 0:
        return None
    record = (at + 1 - layout.strings).to_bytes(4, layout.order)
    position = data.find(record, layout.types, layout.types_end)
    while position >= 0:
        # These four bytes may be part of something else.  They count only as the beginning of a
        # whole, aligned record of an enum whose names all fit.
        if (position - layout.types) % 4 == 0 and position + 12 <= layout.types_end:
            try:
                return _enum_at(data, layout, position, kind, guarded=True)
            except (NamesError, BtfError):
                pass
        position = data.find(record, position + 1, layout.types_end)
    return None


def _enum_at(data: "Buffer", layout: Layout, position: int, kind: Kind, *, guarded: bool) -> Enum:
    info = _u32(data, layout, position + 4)
    type_kind = info >> 24 & 0x1F
    size = {_KIND_ENUM: 8, _KIND_ENUM64: 12}.get(type_kind)
    if size is None:
        raise BtfError("it isn't an enum")
    first, count = position + 12, info & 0xFFFF
    if first + count * size > layout.types_end:
        raise BtfError("an enum in it is cut short")
    order = layout.order
    record = bytes(data[first : first + count * size])

    def enumerators() -> "Iterator[tuple[str, int]]":
        for at in range(0, len(record), size):
            name = string(data, layout, int.from_bytes(record[at : at + 4], order))
            value = int.from_bytes(record[at + 4 : at + 8], order)
            if size == 12:
                value |= int.from_bytes(record[at + 8 : at + 12], order) << 32
            yield name, value

    return make_enum(kind, enumerators(), guarded=guarded)


def _types(data: "Buffer", layout: Layout) -> "Iterator[tuple[int, int]]":
    """Each type's position and kind."""
    position, end = layout.types, layout.types_end
    section = bytes(data[position:end])
    base, order = position, layout.order
    while position < end:
        info = int.from_bytes(section[position - base + 4 : position - base + 8], order)
        tail = TAIL.get(info >> 24 & 0x1F)
        if tail is None:
            raise BtfError(f"it has a type of the unknown kind {info >> 24 & 0x1F}")
        following = position + 12 + tail[0] + tail[1] * (info & 0xFFFF)
        if following > end:
            raise BtfError("a type in it is cut short")
        yield position, info >> 24 & 0x1F
        position = following


def _u32(data: "Buffer", layout: Layout, position: int) -> int:
    return int.from_bytes(data[position : position + 4], layout.order)


def string(data: "Buffer", layout: Layout, offset: int) -> str:
    """The name at `offset` in the string section.  Raises BtfError if it isn't inside."""
    start = layout.strings + offset
    end = data.find(b"\0", start, layout.strings_end) if start < layout.strings_end else -1
    if end < 0:
        raise BtfError("a name in it is outside the string section")
    return bytes(data[start:end]).decode("ascii", "replace")
