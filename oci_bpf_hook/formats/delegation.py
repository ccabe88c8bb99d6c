"""A delegation on its way from one program's configuration to another's."""

from collections.abc import Mapping

from ..bpf.names import ALL_BITS, KINDS, Enum
from ..bpf.type_facts import capabilities
from ..delegation.annotations import Request
from ..delegation.masks import resolve
from ..kernel.enums import table
from ..values import Value


class Delegation(Value):
    """What the container `name` is to get; `image` is None where the source names none."""

    __slots__ = ("image", "name", "request")
    name: str
    image: str | None
    request: Request


class Written(Value):
    """The same in the words of another program, and a note for each thing that it can't say."""

    __slots__ = ("notes", "text")
    text: str
    notes: tuple[str, ...]


def masks(request: Request, profiles: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The masks that `request` means by the shipped table.  Raises HookError."""
    return resolve(request, enums(), table, profiles)[0].masks


def enums() -> dict[str, Enum]:
    """The names of all kernels."""
    return table().enums(KINDS)


def names(
    request: Request, profiles: Mapping[str, Mapping[str, int]], notes: list[str]
) -> dict[str, list[str]]:
    """The names that `request` means, by their option; ["any"] for all of them.

    For programs that take nothing but names: profiles, masks and `!` items become the names that
    they stand for, and what has none goes to `notes`.  Raises HookError.
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
            # One by one: "any" would take in what later kernels add.
            found[option] = [enum.names[bit] for bit in sorted(enum.names) if named >> bit & 1]
        if named == enum.known:
            notes.append(f"{option}: these are all names so far; later kernels' aren't among them")
    notes.extend(
        f"the profile {profile} is written out as it is in this host's policy"
        for profile in request.profiles
    )
    return found


def needed(request: Request, profiles: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The capabilities that a container takes to use what `request` asks for, without CAP_.

    A recording is of whatever its program does, and takes all of them.  Raises HookError.
    """
    wanted = masks(request, profiles)
    if request.record:
        wanted = {kind.option: ALL_BITS for kind in KINDS}
    return list(capabilities(wanted, enums()))
