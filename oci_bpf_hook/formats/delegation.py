"""The delegation of a container, while `convert` translates it between formats."""

from collections.abc import Mapping

from ..bpf.capabilities import capabilities
from ..bpf.names import ALL_BITS, KINDS, Enum
from ..delegation.annotations import Request
from ..delegation.masks import resolve
from ..kernel.enums import table
from ..values import Value


class Delegation(Value):
    """What the container `name` is to get; `image` is None if the source doesn't name it."""

    __slots__ = ("image", "name", "request")
    name: str
    image: str | None
    request: Request


class Written(Value):
    """The delegation in another format, with a note for each thing that the format can't say."""

    __slots__ = ("notes", "text")
    text: str
    notes: tuple[str, ...]


def masks(request: Request, profiles: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The masks that `request` asks for, by the shipped table.  Raises HookError."""
    return resolve(request, enums(), table, profiles)[0].masks


def enums() -> dict[str, Enum]:
    """The enums with the names of all kernels, by their option."""
    return table().enums(KINDS)


def names(
    request: Request, profiles: Mapping[str, Mapping[str, int]], notes: list[str]
) -> dict[str, list[str]]:
    """The names that `request` asks for, by their option; ["any"] stands for all of them.

    They are for programs that take only names: profiles, masks and `!` items become the names that
    they stand for, and `notes` gets what has no name.  Raises HookError.
    """
    known = enums()
    found: dict[str, list[str]] = {}
    for option, mask in masks(request, profiles).items():
        enum = known[option]
        if mask == ALL_BITS:
            found[option] = ["any"]
            continue
        named = mask & enum.known
        if named != mask:
            notes.append(f"{option}: the bits {mask & ~named:#x} have no names and are left out")
        if named:
            # Each name is written out, since "any" would include names that later kernels add.
            found[option] = [enum.names[bit] for bit in sorted(enum.names) if named >> bit & 1]
        if named == enum.known:
            notes.append(
                f"{option}: these are all names known now; names of later kernels aren't included"
            )
    notes.extend(
        f"the profile {profile} is written out as it is in this host's policy"
        for profile in request.profiles
    )
    return found


def needed(request: Request, profiles: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The capabilities, without CAP_, that a container needs to use what `request` asks for.

    A container that is recorded gets all of them, since its program may do anything.  Raises
    HookError.
    """
    wanted = masks(request, profiles)
    if request.record:
        wanted = {kind.option: ALL_BITS for kind in KINDS}
    return list(capabilities(wanted, enums()))
