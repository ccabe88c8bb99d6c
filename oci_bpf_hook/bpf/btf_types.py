"""Reads types from BTF: an object's, for its maps and variables, or a kernel's, for its structs.

The format is described in Documentation/bpf/btf.rst.  As in `btf`, any bytes give either a right
result or a BtfError.
"""

from bisect import bisect_left
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from .btf import TAIL, BtfError, Layout, layout_of, string

if TYPE_CHECKING:
    from .btf import Buffer

PTR = 2
ARRAY = 3
STRUCT = 4
UNION = 5
ENUM = 6
FUNC = 12
FUNC_PROTO = 13
VAR = 14
DATASEC = 15
# The kinds that only qualify another type: TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG.
_QUALIFIERS = {8, 9, 10, 11, 18}
# Qualifiers that are nested deeper than this refer to themselves.
_DEEP = 64
# How many members and variables are read in all; one that is read again counts again.  No real
# object has so many, but in a hostile one a few bytes can make one struct of a thousand members
# define a thousand maps.
_LOOKED_AT = 1 << 20
# A name that is longer than this counts as several members.
_USUAL_NAME = 64


class Variable(NamedTuple):
    """A variable of a data section, at `offset` in it; `type` is a type's number."""

    name: str
    type: int
    offset: int
    size: int


class Member(NamedTuple):
    """A member of a struct; `offset` is in bits."""

    name: str
    type: int
    offset: int


class Types:
    """The types in the BTF `data`, by their numbers, from 1 on.  Raises BtfError."""

    def __init__(self, data: "Buffer") -> None:
        self._data = data
        self._layout = layout_of(data)
        order = "<" if self._layout.order == "little" else ">"
        self._one, self._three = Struct(order + "I"), Struct(order + "III")
        # The numbers of data sections: there are few, and they are looked up by name.
        self._sections: list[int] = []
        self._left = _LOOKED_AT
        self._positions = self._walk()

    def _walk(self) -> list[int]:
        """The position of each type; few types are asked for, and only these are decoded."""
        # The number 0 is `void`, which has no record.
        positions = [0]
        position, end = self._layout.types, self._layout.types_end
        unpack = self._one.unpack_from
        while position < end:
            if position + 12 > end:
                raise BtfError("a type in it is cut short")
            (info,) = unpack(self._data, position + 4)
            kind = info >> 24 & 0x1F
            tail = TAIL.get(kind)
            if tail is None:
                raise BtfError(f"it has a type of the unknown kind {kind}")
            if kind == DATASEC:
                self._sections.append(len(positions))
            positions.append(position)
            position += 12 + tail[0] + tail[1] * (info & 0xFFFF)
        if position > end:
            raise BtfError("a type in it is cut short")
        return positions

    def __len__(self) -> int:
        """One more than the last type's number."""
        return len(self._positions)

    def kind(self, number: int) -> int:
        """The kind of a type; 0 for `void`."""
        return self._record(number)[1] >> 24 & 0x1F

    def name(self, number: int) -> str:
        """The name of a type; empty if it has none."""
        return self._string(self._record(number)[0])

    def target(self, number: int) -> int:
        """The type that a pointer points to, that a variable has, or that is qualified."""
        return self._record(number)[2]

    def plain(self, number: int) -> int:
        """The type without typedefs and qualifiers."""
        for _ in range(_DEEP):
            if self.kind(number) not in _QUALIFIERS:
                return number
            number = self.target(number)
        raise BtfError("a type in it refers to itself")

    def array(self, number: int) -> tuple[int, int]:
        """The type of an array's elements, and how many it has."""
        position = self._expect(number, ARRAY)
        element, _, count = self._three.unpack_from(self._data, position + 12)
        return element, count

    def members(self, number: int) -> list[Member]:
        """The members of a struct or union."""
        position = self._expect(number, STRUCT, UNION)
        _, info, _ = self._record(number)
        self._look(info & 0xFFFF)
        found = []
        for at in range(position + 12, position + 12 + 12 * (info & 0xFFFF), 12):
            name, of, offset = self._three.unpack_from(self._data, at)
            # If the kind flag is set, the upper eight bits are a bit field's size.
            found.append(
                Member(self._string(name), of, offset & 0xFFFFFF if info >> 31 else offset)
            )
        return found

    def section(self, name: str) -> list[Variable]:
        """The variables in the data section of this name; [] if there is no such section."""
        for number in self._sections:
            position = self._positions[number]
            at, info, _ = self._record(number)
            self._look(1)
            if self._string(at) == name:
                self._look(info & 0xFFFF)
                return [
                    Variable(self.name(var), self.target(self._var(var)), offset, size)
                    for var, offset, size in (
                        self._three.unpack_from(self._data, entry)
                        for entry in range(position + 12, position + 12 + 12 * (info & 0xFFFF), 12)
                    )
                    if self.kind(var) == VAR
                ]
        return []

    def named(self, name: str, kind: int) -> list[int]:
        """The numbers of the types of this name and kind; usually one or none.

        It searches for the name and then for records that have it.  In a kernel's BTF that takes a
        hundredth of the time of comparing every type's name.
        """
        data, layout = self._data, self._layout
        at = data.find(b"\0" + name.encode("utf-8") + b"\0", layout.strings, layout.strings_end)
        if at < 0 or not name:
            return []
        needle = (at + 1 - layout.strings).to_bytes(4, layout.order)
        found = []
        position = data.find(needle, layout.types, layout.types_end)
        while position >= 0:
            # These four bytes may be part of something else, unless a record begins there.
            number = bisect_left(self._positions, position, 1)
            is_one = number < len(self) and self._positions[number] == position
            if is_one and self.kind(number) == kind:
                found.append(number)
            position = data.find(needle, position + 1, layout.types_end)
        return found

    def enumerators(self, number: int) -> dict[str, int]:
        """The names in an enum, with their values."""
        position = self._expect(number, ENUM)
        _, info, _ = self._record(number)
        self._look(info & 0xFFFF)
        unpack = Struct("<Ii" if self._layout.order == "little" else ">Ii").unpack_from
        entries = range(position + 12, position + 12 + 8 * (info & 0xFFFF), 8)
        pairs = (unpack(self._data, at) for at in entries)
        return {self._string(name): value for name, value in pairs}

    def _look(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BtfError("its types refer to each other endlessly")

    def _var(self, number: int) -> int:
        self._expect(number, VAR)
        return number

    def _expect(self, number: int, *kinds: int) -> int:
        if self.kind(number) not in kinds:
            raise BtfError("a type in it isn't of the expected kind")
        return self._positions[number]

    def _record(self, number: int) -> tuple[int, int, int]:
        """The name, the info, and the size or type of a type; for `void` all three are 0."""
        if number >= len(self._positions):
            raise BtfError("it refers to a type that doesn't exist")
        if not number:
            return 0, 0, 0
        name, info, size = self._three.unpack_from(self._data, self._positions[number])
        return name, info, size

    def _string(self, offset: int) -> str:
        found = string(self._data, self._layout, offset)
        if len(found) > _USUAL_NAME:
            self._look(len(found) // _USUAL_NAME)
        return found


def struct_members(data: "Buffer", name: str) -> list[str] | None:
    """The members' names of `struct name` in the kernel's BTF `data`; None without such a struct.

    Reading all of a kernel's 126,000 types takes a second, so this searches for the name, and then
    for a struct that has it.  Raises BtfError.
    """
    layout = layout_of(data)
    at = data.find(b"\0" + name.encode("utf-8") + b"\0", layout.strings, layout.strings_end)
    if at < 0 or not name:
        return None
    needle = (at + 1 - layout.strings).to_bytes(4, layout.order)
    unpack = Struct("<III" if layout.order == "little" else ">III").unpack_from
    position = data.find(needle, layout.types, layout.types_end)
    while position >= 0:
        if (position - layout.types) % 4 == 0 and position + 12 <= layout.types_end:
            _, info, size = unpack(data, position)
            members = _members_at(data, layout, position, info, size)
            if members is not None:
                return members
        position = data.find(needle, position + 1, layout.types_end)
    return None


def _members_at(
    data: "Buffer", layout: Layout, position: int, info: int, size: int
) -> list[str] | None:
    # These four bytes may be part of something else.  In a struct the members are in order and
    # within its size.
    first, count = position + 12, info & 0xFFFF
    if info >> 24 & 0x1F != STRUCT or not count or first + 12 * count > layout.types_end:
        return None
    unpack = Struct("<III" if layout.order == "little" else ">III").unpack_from
    names, before = [], 0
    for at in range(first, first + 12 * count, 12):
        name, _, offset = unpack(data, at)
        bits = offset & 0xFFFFFF if info >> 31 else offset
        if not before <= bits < size * 8 + 1:
            return None
        before = bits
        try:
            names.append(string(data, layout, name))
        except BtfError:
            return None
    return names
