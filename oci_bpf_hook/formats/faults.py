"""Turns what is wrong with a file into a HookError."""

from ..errors import USAGE, HookError
from ..text.places import Fault


def text_of(data: bytes, name: str) -> str:
    """The text of the file `name` with the content `data`.  Raises HookError (USAGE)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HookError(USAGE, f"{name}: this isn't UTF-8 (at byte {error.start})") from None


def raise_if_any(faults: list[Fault], name: str) -> None:
    """Raise HookError (USAGE) with all `faults` of the file `name`, in their order there."""
    if faults:
        lines = sorted(faults, key=lambda fault: (fault.line, fault.column))
        raise HookError(USAGE, *(f"{name}:{one.line}:{one.column}: {one.text}" for one in lines))
