"""A change to a JSON text that leaves all else of it as it is written.

To decode and encode a configuration anew loses what Python's numbers and strings don't keep: how
a number was written, half a surrogate pair, the order of what came twice.  So what is equal
afterwards is taken from the text itself, and only what differs is written.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # From a text and a place in it, the value that begins there and where it ends.
    Scan = Callable[[str, int], tuple[object, int]]
    Encode = Callable[[object], str]

_BLANK = " \t\n\r"


def spliced(text: str, value: object, scan: "Scan", encode: "Encode") -> str:
    """The JSON `text` with what is different in `value`, and nothing else.

    `text` is what `scan` has decoded once, and in none of its objects a key comes twice; `encode`
    writes a value.
    """
    at = _start(text, 0)
    rest = scan(text, at)[1]
    return text[:at] + _value(text, at, value, scan, encode) + text[rest:]


def _value(text: str, at: int, new: object, scan: "Scan", encode: "Encode") -> str:
    """What stands at `at`, made `new`."""
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
    """The members of the object at `at` that `new` has too, as written, then the others."""
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
    """The items of `new`: those that the array at `at` has too, in this order, as written there."""
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
    """Where the items of the array at `at` begin, or with `pairs` the keys of the object there."""
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
    """The first place from `at` on that isn't white space."""
    while text[at] in _BLANK:
        at += 1
    return at


def _same(one: object, other: object) -> bool:
    """Whether they are the same in JSON, where 1, 1.0 and true are three."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other
