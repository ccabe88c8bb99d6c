"""What to say of a request that the policy refuses: which items, and what rule would allow it."""

from .annotations import PREFIX, Request
from .errors import quote
from .masks import Grant, bits, show
from .names import ALL_BITS, Enum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def items(request: Request, option: str, excess: int, enum: Enum | None) -> list[str]:
    """The items of a request that ask for bits of `excess`, in the request's words."""
    found: list[str] = []
    rest = excess
    for item in request.lists.get(option, ()):
        if item[0] != "!":
            mask = bits(item, enum) or 0
            if mask & excess:
                named = f" (it has {show(mask & excess, enum)})" if enum and item != "any" else ""
                plain = enum is not None and enum.find(item) is not None
                found.append(f"{PREFIX}{option} {quote(item)}{'' if plain else named}")
            rest &= ~mask
    if rest:
        words = show(rest, enum) if enum else ("any" if rest == ALL_BITS else f"{rest:#x}")
        found.append(f"{PREFIX}profile's {option} {quote(words)}")
    return found


def advice(wanted: Grant, subject: "Mapping[str, object]", enums: "Mapping[str, Enum]") -> str:
    """The rule that would allow `wanted`, for an administrator to look at and to paste."""
    lists = ", ".join(
        f"{option}: [{show(mask, enums[option]).replace(':', ', ')}]"
        for option, mask in wanted.masks.items()
    )
    known = ", ".join(
        f"{attribute}: {quote(str(subject[attribute]))}"
        for attribute in ("cdi", "namespace", "pod", "container")
        if subject.get(attribute) is not None
    )
    if subject.get("claimed"):
        known = f"user: {subject['user']}"
    return (
        "to allow it, an administrator puts before that rule in /etc/oci-bpf-hook/policy.yaml "
        f"- {{name: NAME, match: {{{known}}}, allow: {{{lists}}}}}"
    )
