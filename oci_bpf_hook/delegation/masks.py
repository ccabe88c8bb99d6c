"""Turns a Request into the kernel's four 64-bit masks, and reads masks from what bpffs shows.

The kernel gets masks from us, never names: its parser lets a number overwrite the names that stand
before it in the same list (Linux: kernel/bpf/inode.c, bpf_parse_param; 6.9).
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
    """What is delegated: `masks` has each `delegate_*` option whose mask isn't 0.

    `path` and `mode` are those of the mount.
    """

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
    """What `request` means on the kernel with these `enums`, and the names that were dropped.

    `table` is called only for a name that isn't in `enums`; `profiles` are the policy's.  A list is
    the union of the profiles and its items, less the union of its `!` items; their order doesn't
    matter.  Raises HookError (UNKNOWN_NAME) with all problems.
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
        # A name may be wrong twice, with and without "!", and is reported once.
        raise HookError(UNKNOWN_NAME, *once(unknown.problems))
    dropped = tuple(unknown.dropped) if unknown is not None else ()
    return Grant(masks=masks, path=request.path, mode=request.mode), dropped


def _unknown(request: Request, table: "Callable[[], Table]") -> "Unknown":
    from .suggestions import Unknown

    return Unknown(table, drop=request.drop_unknown)


def bits(item: str, enum: Enum | None) -> int | None:
    """The bits that `item` means; None for an unknown name.

    Only a name needs `enum`, the kernel's names: "any" and a mask mean the same on each kernel.
    """
    if item == "any":
        return ALL_BITS
    if item.startswith("0x"):
        return int(item, 16)
    assert enum is not None, "a name needs the kernel's enum"
    value = enum.find(item)
    return None if value is None else bit(value)


def show(mask: int, enum: Enum) -> str:
    """The `mask` as bpffs shows it (Linux: kernel/bpf/inode.c, seq_print_delegate_opts; 6.9).

    Bits without a name, which bpffs itself leaves out, come last, as `0x..`.
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
    """The mask that bpffs shows as `text`, which has names, `0x..` or `any`.

    bpffs shows `any` if all bits that have a name are set; the mask returned for it is ALL_BITS.
    Raises ValueError for a name that `enum` lacks; if `enum` is None, for each name.
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
    """How the `delegate_*` options that a mount shows differ from `grant`; empty if they agree.

    `shown` are the options as /proc/PID/mountinfo has them, `key=value`.  The kernel shows only the
    bits that it has names for, and only these are compared.
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
