"""Reads and writes JSON on the hot path, without the json package.

The package brings re and enum, which together take longer than the whole hook.  The reader is
strict: it takes no NaN, nothing that is nested without end, and on request no key twice.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn


def load_json(data: bytes, *, unique: bool = False) -> object:
    """The JSON text `data`, strictly; raises ValueError.  With `unique` no key may come twice.

    Uses the scanner of which the json package is a wrapper.
    """
    text = data.decode("utf-8")
    try:
        import _json

        # It takes a JSONDecoder, and of that these six attributes.
        scan = _json.make_scanner(_Unique if unique else _Strict)  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):  # An interpreter without it.
        import json

        try:
            hook = _unique if unique else None
            return json.loads(text, parse_constant=_no_constant, object_pairs_hook=hook)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    try:
        start = len(text) - len(text.lstrip(" \t\n\r"))
        value, end = scan(text, start)
    except StopIteration:
        raise ValueError("no JSON value") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except SystemError:
        # It leaves it to a json.decoder that is loaded already to say what is wrong, and
        # fails without saying anything where none is (Modules/_json.c, raise_errmsg).
        raise ValueError(_what_is_wrong(text)) from None
    if text[end:].strip(" \t\n\r"):
        raise ValueError("more than one JSON value")
    return value


def scanner() -> "Callable[[str, int], tuple[object, int]]":
    """What reads one value of a JSON text, as load_json() with `unique` does, and where it ends."""
    try:
        import _json

        scan: Callable[[str, int], tuple[object, int]] = _json.make_scanner(_Unique)  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):  # An interpreter without it.
        import json

        return json.JSONDecoder(object_pairs_hook=_unique).raw_decode
    return scan


def _what_is_wrong(text: str) -> str:
    """Why `text` is no JSON, in the words of the json package."""
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return "malformed"


def _no_constant(name: str) -> "NoReturn":
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int:
    """What int() makes of the digits of a JSON number.

    That takes a logarithm first, to know how long the number will be, and with it has 128 KiB of
    libm in memory: in all of the hook nothing else does.  Numbers beyond 64 bits are left to it.
    """
    if len(text) > 20:
        return int(text)
    value = 0
    for digit in text.lstrip("-").encode():
        value = value * 10 + digit - 48
    return -value if text[0] == "-" else value


def _unique(pairs: "list[tuple[str, object]]") -> dict[str, object]:
    """The object of these `pairs`, in which no key comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


class _Strict:
    """What the scanner asks of a JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook: "Callable[[list[tuple[str, object]]], dict[str, object]] | None" = None
    parse_float = float
    parse_int = staticmethod(_integer)
    parse_constant = staticmethod(_no_constant)


class _Unique(_Strict):
    object_pairs_hook = staticmethod(_unique)


def json_object(fields: "Mapping[str, object]") -> str:
    """`fields` as JSON; values are strings, numbers, None, or lists and mappings of these."""
    return (
        "{" + ",".join(f"{_string(key)}:{json_value(value)}" for key, value in fields.items()) + "}"
    )


def json_value(value: object) -> str:
    """`value` as JSON, where it is one of those."""
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json_object(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(json_value, value)) + "]"
    return str(value)


def _string(text: str) -> str:
    from _json import encode_basestring_ascii

    return encode_basestring_ascii(text)
