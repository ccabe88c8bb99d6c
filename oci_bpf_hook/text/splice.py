"""Changes a JSON text and leaves every part that doesn't change as it is written.

Decoding and encoding a configuration would lose what Python's numbers and strings don't keep, such
as the way a number is written, or a lone surrogate.  So the parts that stay equal are copied from
the text, and only what differs is encoded.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Takes a text and an offset, and returns the value that begins there and the offset of its end.
    Scan = Callable[[str, int], tuple[object, int]]
    Encode = Callable[[object], str]

_BLANK = " \t\n\r"


def spliced(text: str, value: object, scan: "Scan", encode: "Encode") -> str:
    """The JSON `text`, changed where `value` differs from it and nowhere else.

    `scan` must be able to read `text`, in which no object may have a key twice; `encode` writes a
    value.
    """
    at = _start(text, 0)
    rest = scan(text, at)[1]
    return text[:at] + _value(text, at, value, scan, encode) + text[rest:]


def _value(text: str, at: int, new: object, scan: "Scan", encode: "Encode") -> str:
    """`new` as JSON, in which the parts that equal those of the value at `at` are copied."""
    old, end = scan(text, at)
    if _same(old, new):
        return text[at:end]
    if isinstance(old, dict) and isinstance(new, dict):
        return "{" + ",".join(_members(text, at, new, scan, encode)) + "}"
    if isinstance(old, list) and isinstance(new, list):
        return "[" + ",".join(_items(text, at, new, scan, encode)) + "]"
    return encode(new)


def _members(
    text: str, at: int, new: "dict[str, object]", scan: "Scan", encode: "Encode"
) -> "Iterator[str]":
    """The members of `new` as JSON: first those that the object at `at` also has, then the others.

    The first are in the order of that object, and their keys are copied from it.
    """
    seen: set[str] = set()
    for start in _starts(text, at, scan, pairs=True):
        key, end = scan(text, start)
        assert isinstance(key, str)
        seen.add(key)
        if key in new:
            value = _start(text, _start(text, end) + 1)
            yield text[start:value] + _value(text, value, new[key], scan, encode)
    for key, value_of in new.items():
        if key not in seen:
            yield f"{encode(key)}:{encode(value_of)}"


def _items(
    text: str, at: int, new: "list[object]", scan: "Scan", encode: "Encode"
) -> "Iterator[str]":
    """The items of `new` as JSON; those that the array at `at` also has are copied from it.

    Copied items are in the same order in both, and an item that is out of order is encoded anew.
    """
    old = [(start, *scan(text, start)) for start in _starts(text, at, scan, pairs=False)]
    following = 0
    for item in new:
        for number in range(following, len(old)):
            start, value, end = old[number]
            if _same(value, item):
                yield text[start:end]
                following = number + 1
                break
        else:
            yield encode(item)


def _starts(text: str, at: int, scan: "Scan", *, pairs: bool) -> "Iterator[int]":
    """The offsets of the items of the array at `at`, or with `pairs` of the object's keys."""
    at = _start(text, at + 1)
    while text[at] not in "]}":
        yield at
        at = scan(text, at)[1]
        if pairs:
            at = scan(text, _start(text, _start(text, at) + 1))[1]
        at = _start(text, at)
        if text[at] == ",":
            at = _start(text, at + 1)


def _start(text: str, at: int) -> int:
    """The first offset from `at` on that isn't white space."""
    while text[at] in _BLANK:
        at += 1
    return at


def _same(one: object, other: object) -> bool:
    """Whether they are the same in JSON, where 1, 1.0 and true differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
