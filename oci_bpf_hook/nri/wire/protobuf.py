"""Protocol Buffers, as far as NRI's messages need them: numbers, texts, and messages in messages.

The library `protobuf` could do this too.  It isn't used, because it would be the only dependency of
the plugin besides YAML and JSON Schema, and one with native code for each architecture and Python;
because importing it takes longer than a whole hook; and because it decodes all of a message, while
the plugin needs few of a container's fields and mostly none.  What is left is this file, and its
tests hold it against what engines have really sent.

Decoding is lazy: a Message knows its own fields, and an inner message is decoded when it is asked
for.  So the depth of what was sent costs nothing, and unknown fields are only passed over.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Field: TypeAlias = int | str | bytes | Mapping[str, str] | Sequence[str] | Sequence[bytes]

_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
# The most bytes of a number of 64 bits, and the highest number of a field.
_LONGEST = 10
_HIGHEST = (1 << 29) - 1
# The most fields that a message is read with.  No container that is meant to run has as many
# arguments, and reading them takes time, in which an engine waits for us.
MOST = 1 << 16


class MalformedError(ValueError):
    """What was sent isn't a message; the text says what is wrong, as the end of a sentence."""


class Message:
    """A message's fields, by number.  A field that is missing is 0, "", or empty.

    Raises MalformedError, also if a field that is asked for is of another type.
    """

    __slots__ = ("_fields",)

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, list[int | bytes]] = {}
        at = found = 0
        while at < len(data):
            found += 1
            if found > MOST:
                raise MalformedError(f"has more than {MOST} fields")
            key, at = _read(data, at)
            number, kind = key >> 3, key & 7
            if not 0 < number <= _HIGHEST:
                raise MalformedError(f"has a field with the number {number}")
            value: int | bytes
            if kind == _VARINT:
                value, at = _read(data, at)
            elif kind == _BYTES:
                size, at = _read(data, at)
                value, at = data[at : at + size], at + size
            elif kind in _SIZES:
                value, at = data[at : at + _SIZES[kind]], at + _SIZES[kind]
            else:
                # Groups, which nobody has used for long, are not skipped.
                raise MalformedError(f"has a field of the type {kind}")
            if at > len(data):
                raise MalformedError("ends within a field")
            self._fields.setdefault(number, []).append(value)

    def number(self, field: int) -> int:
        """The number in the `field`; the last one counts if it is there more than once."""
        value = self._fields.get(field, [0])[-1]
        if not isinstance(value, int):
            raise MalformedError(f"has no number in its field {field}")
        return value

    def text(self, field: int) -> str:
        """The text in the `field`; the last one counts if it is there more than once."""
        return _text(self._all(field)[-1:], field)

    def texts(self, field: int) -> tuple[str, ...]:
        """All texts in the repeated `field`."""
        return tuple(_text([value], field) for value in self._all(field))

    def data(self, field: int) -> bytes:
        """The bytes in the `field`; the last ones count if it is there more than once."""
        return b"".join(self._all(field)[-1:])

    def datas(self, field: int) -> list[bytes]:
        """All bytes in the repeated `field`."""
        return list(self._all(field))

    def message(self, field: int) -> "Message":
        """The message in the `field`, empty if it is missing."""
        # If it is there more than once, all are merged, and that is what their bytes one after the
        # other mean.
        return Message(b"".join(self._all(field)))

    def messages(self, field: int) -> "tuple[Message, ...]":
        """All messages in the repeated `field`."""
        return tuple(Message(value) for value in self._all(field))

    def pairs(self, field: int) -> dict[str, str]:
        """The map in the `field`; the last one counts if a key is there more than once."""
        return {one.text(1): one.text(2) for one in self.messages(field)}

    def _all(self, field: int) -> list[bytes]:
        values = self._fields.get(field, [])
        found = [value for value in values if isinstance(value, bytes)]
        if len(found) != len(values):
            raise MalformedError(f"has a number in its field {field}")
        return found


def _text(values: list[bytes], field: int) -> str:
    try:
        return b"".join(values).decode()
    except UnicodeDecodeError:
        raise MalformedError(f"has no UTF-8 in its field {field}") from None


def _read(data: bytes, at: int) -> tuple[int, int]:
    """The number at the place `at`, and the place after it."""
    # Most numbers are of one byte.
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = 0
    for shift, byte in enumerate(data[at : at + _LONGEST]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at + shift + 1
    raise MalformedError("has a number without an end")


def encode(fields: "Mapping[int, Field]") -> bytes:
    """The message with these `fields`; one that is 0 or empty is left out.

    A mapping is a map of texts, and a list or tuple is a repeated field.  An inner message is given
    as its bytes.
    """
    return b"".join(_field(number, value) for number, value in fields.items())


def _field(number: int, value: "Field") -> bytes:
    if not value:
        return b""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    if isinstance(value, str | bytes):
        return _bytes(number, value)
    if isinstance(value, list | tuple):
        return b"".join(_bytes(number, one) for one in value)
    pairs = value.items()  # type: ignore[union-attr]
    return b"".join(_bytes(number, encode({1: key, 2: text})) for key, text in pairs)


def _bytes(number: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
