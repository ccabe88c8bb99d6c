"""From a Request to the four 64-bit masks the kernel takes, and back from what it shows.

We hand the kernel masks, never names: its parser takes a number for a whole mask
and lets it overwrite the names before it (kernel/bpf/inode.c, bpf_parse_param).
"""

from ..bpf.names import ALL_BITS, KINDS, Enum, bit
from ..errors import UNKNOWN_NAME, HookError, once, quote
from ..values import Value
from .annotations import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..bpf.table import Table
    from .suggestions import Unknown


class Grant(Value):
    """What is delegated: `masks` has each `delegate_*` option whose mask isn't 0."""

    __slots__ = ("masks", "mode", "path")
    masks: dict[str, int]
    path: str
    mode: int


def resolve(
    request: Request,
    enums: "Mapping[str, Enum]",
    table: "Callable[[], Table]",
    profiles: "Mapping[str, Mapping[str, int]]",
) -> tuple[Grant, tuple[str, ...]]:
    """What `request` means on the kernel with these `enums`, and the names it dropped.

    `table` is called only for a name that isn't in `enums`; `profiles` are the policy's.
    A list is the union of the profiles and its items, less the union of its `!` items, in
    whatever order they stand.  Raises HookError (UNKNOWN_NAME) with every problem there is.
    """
    unknown: Unknown | None = None
    for name in request.profiles:
        if name not in profiles:
            unknown = unknown or _unknown(request, table)
            unknown.profile(name, profiles)
    masks: dict[str, int] = {}
    for kind in KINDS:
        given = taken = 0
        for name in request.profiles:
            given |= profiles.get(name, {}).get(kind.option, 0)
        for item in request.lists.get(kind.option, ()):
            mask = bits(item.lstrip("!"), enums.get(kind.option))
            if mask is None:
                unknown = unknown or _unknown(request, table)
                mask = unknown.item(kind, item, enums[kind.option])
            if item[0] == "!":
                taken |= mask
            else:
                given |= mask
        if given & ~taken:
            masks[kind.option] = given & ~taken
    if unknown is not None and unknown.problems:
        # An item and the same with ! in front are one mistake.
        raise HookError(UNKNOWN_NAME, *once(unknown.problems))
    dropped = tuple(unknown.dropped) if unknown is not None else ()
    return Grant(masks=masks, path=request.path, mode=request.mode), dropped


def _unknown(request: Request, table: "Callable[[], Table]") -> "Unknown":
    from .suggestions import Unknown

    return Unknown(table, drop=request.drop_unknown)


def bits(item: str, enum: Enum | None) -> int | None:
    """The bits that one item stands for; None for an unknown name."""
    if item == "any":
        return ALL_BITS
    if item.startswith("0x"):
        return int(item, 16)
    assert enum is not None, "needed() says which enums it takes"
    value = enum.find(item)
    return None if value is None else bit(value)


def show(mask: int, enum: Enum) -> str:
    """`mask` in the words of bpffs's mount options (seq_print_delegate_opts).

    Bits beyond the kernel's last name, which bpffs itself leaves out, come last as `0x..`.
    """
    known = enum.known
    if mask == ALL_BITS:
        return "any"
    shown = [name for value, name in sorted(enum.names.items()) if mask >> value & 1]
    if mask & known == known:
        shown = ["any"]
    rest = mask & ~known
    return ":".join([*shown, f"{rest:#x}"] if rest else shown)


def parse_shown(text: str, enum: Enum | None) -> int:
    """The mask behind what bpffs shows: names, `0x..` or `any`; `enum` None knows no names.

    `any` means all bits that the kernel has a name for, and is given back as ALL_BITS.
    Raises ValueError for a name that `enum` lacks.
    """
    mask = 0
    for item in text.split(":"):
        known = enum or item == "any" or item.startswith("0x")
        part = bits(item, enum) if known else None
        if part is None:
            raise ValueError(f"{item!r} is not in the table of names")
        mask |= part
    return mask


def differences(grant: Grant, shown: "Iterable[str]", enums: "Mapping[str, Enum]") -> list[str]:
    """How the `delegate_*` options that a mount shows differ from `grant`; empty if not at all.

    `shown` are the options as /proc/PID/mountinfo has them, `key=value`.  The kernel shows
    the bits that it has names for, and keeps the others to itself.
    """
    found = {key: text for key, _, text in (item.partition("=") for item in shown)}
    wrong: list[str] = []
    for kind in KINDS:
        wanted = grant.masks.get(kind.option, 0)
        text = found.get(kind.option, "")
        if not _same(wanted, text, enums.get(kind.option)):
            wrong.append(f"{kind.option} is {quote(text)} and should be {wanted:#x}")
    return wrong


def _same(wanted: int, text: str, enum: Enum | None) -> bool:
    known = enum.known if enum else ALL_BITS
    if not text:
        return not wanted & known
    try:
        shown = parse_shown(text, enum)
    except ValueError:
        return False
    return shown & known == wanted & known
