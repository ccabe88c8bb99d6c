"""Reads and writes JSON on the hot path, without the json package.

The package imports re and enum, which together take longer than the whole hook.  The reader is
strict: it refuses NaN, nesting that is too deep, and on request an object with a key twice.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn


def load_json(data: bytes, *, unique: bool = False) -> object:
    """The value of the JSON text `data`; with `unique` no object may have a key twice.

    It uses the C scanner that the json package uses.  Raises ValueError.
    """
    text = data.decode("utf-8")
    try:
        import _json

        # The scanner is made for a JSONDecoder, of which it reads these six attributes.
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
        raise ValueError("it has no JSON value") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except SystemError:
        # The scanner raises json.decoder's error, and fails with a bare SystemError if that module
        # isn't imported (Modules/_json.c, raise_errmsg).
        raise ValueError(_what_is_wrong(text)) from None
    if text[end:].strip(" \t\n\r"):
        raise ValueError("more than one JSON value")
    return value


def scanner(*, unique: bool = True) -> "Callable[[str, int], tuple[object, int]]":
    """A function that reads one value of a JSON text as load_json() with this `unique` does.

    It takes the text and the offset at which the value begins, and returns the value and the offset
    of its end.  It is for texts that load_json() has read without an error.
    """
    try:
        import _json

        scan: Callable[[str, int], tuple[object, int]] = _json.make_scanner(
            _Unique if unique else _Strict  # type: ignore[arg-type]
        )
    except (ImportError, AttributeError, TypeError):  # An interpreter without it.
        import json

        return json.JSONDecoder(object_pairs_hook=_unique if unique else None).raw_decode
    return scan


def _what_is_wrong(text: str) -> str:
    """Why `text` isn't JSON, in the words of the json package."""
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return "malformed"


def _no_constant(name: str) -> "NoReturn":
    raise ValueError(f"{name} isn't JSON")


def _integer(text: str) -> int:
    """The value of an integer in JSON, as int() would give it.

    int() computes a logarithm to know the number's size, and so loads 128 KiB of libm, which
    nothing else in the hook needs.  It is called only for numbers of more than 64 bits.
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
    """The attributes of a JSONDecoder that the scanner reads."""

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
    """`value` as JSON; it is of a type that `json_object` takes for values."""
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
