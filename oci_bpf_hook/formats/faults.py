"""Turns what is wrong with a file into a HookError."""

from collections.abc import Sequence

from ..errors import USAGE, HookError
from ..text.places import Fault, Spot
from .content import Part, located


def text_of(data: bytes, name: str) -> str:
    """The text of the file `name` with the content `data`.  Raises HookError (USAGE)."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HookError(USAGE, f"{name}: this isn't UTF-8 (at byte {error.start})") from None


def raise_if_any(faults: Sequence[Fault], file: str | Sequence[Part]) -> None:
    """Raise HookError (USAGE) with all `faults`, in their order, of the `file` or of its parts."""
    if not faults:
        return
    parts = (Part(line=1, name=file),) if isinstance(file, str) else tuple(file)
    lines: list[str] = []
    for one in sorted(faults, key=lambda fault: (fault.line, fault.column)):
        name, spot = located(parts, Spot(line=one.line, column=one.column))
        lines.append(f"{name}:{spot.line}:{spot.column}: {one.text}")
    raise HookError(USAGE, *lines)
