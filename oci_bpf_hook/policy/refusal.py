"""What to say if the policy refuses a request: the items, and a rule that would allow them."""

from ..bpf.names import ALL_BITS, KINDS, Enum
from ..bpf.type_facts import beyond_confined
from ..delegation.annotations import PREFIX, Request
from ..delegation.masks import Grant, bits, show
from ..errors import Problem, quote
from ..paths import POLICY
from .whom import Whom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .compiled import Rule
    from .subject import Subject

_NOTHING: "Mapping[str, Any]" = {}
_TRUSTED = "which trusts the container with the kernel"


def refused_items(
    rule: "Rule",
    request: Request,
    wanted: Grant,
    granted: "Mapping[str, int]",
    enums: "Mapping[str, Enum]",
) -> tuple[tuple[str, Problem], ...]:
    """Each item of the `request` that wants more than `rule` has `granted`, and the refusal."""
    name = quote(rule["name"])
    found: list[tuple[str, Problem]] = []
    for kind in KINDS:
        rest = wanted.masks.get(kind.option, 0) & ~granted.get(kind.option, 0)
        listed = rest & rule["masks"].get(kind.option, 0)
        enum = enums.get(kind.option)
        for mask, why in (
            (rest & ~listed, "doesn't allow"),
            (listed, "is confined, and a confined token is never given"),
        ):
            more = _asking_for(request, kind.option, mask, enum) if mask else []
            for one in more:
                text = f"rule {name} {why} {one.text}"
                found.append((one.text, Problem(text, key=one.key, item=one.item)))
    return tuple(found)


def _asking_for(request: Request, option: str, excess: int, enum: Enum | None) -> list[Problem]:
    """The items of `request` that ask for bits of `excess`, each as a Problem.

    A Problem's text is a noun phrase in the request's own words, with the annotation's key.
    `option` is the `delegate_*` option, and `enum` has its names on this kernel, if it is known.
    """
    found: list[Problem] = []
    rest = excess
    for item in request.lists.get(option, ()):
        if item[0] != "!":
            mask = bits(item, enum) or 0
            if mask & excess:
                named = f" (it has {show(mask & excess, enum)})" if enum and item != "any" else ""
                plain = enum is not None and enum.find(item) is not None
                text = f"{PREFIX}{option} {quote(item)}{'' if plain else named}"
                found.append(Problem(text, key=option, item=item))
            rest &= ~mask
    if rest:
        words = show(rest, enum) if enum else ("any" if rest == ALL_BITS else f"{rest:#x}")
        found.append(Problem(f"{PREFIX}profile's {option} {quote(words)}", key="profile"))
    return found


def advice(
    wanted: Grant,
    subject: "Subject",
    enums: "Mapping[str, Enum]",
    decided: "Mapping[str, Any] | None" = None,
) -> str:
    """A rule that would allow `wanted`, for an administrator to check and to paste.

    The rule is confined if a confined token may be given all that is `wanted`.  `decided` is the
    match of the rule that refused, None if no rule is for `subject`.
    """
    unconfined = bool(beyond_confined(wanted.masks, enums))
    said = f", {_TRUSTED}," if unconfined else ""
    return f"to allow it{said} {_rule(wanted, subject, enums, decided, unconfined=unconfined)}"


def without_guard(
    name: str,
    grant: Grant,
    why: str,
    subject: "Subject",
    enums: "Mapping[str, Enum]",
    *,
    decided: "Mapping[str, Any]" = _NOTHING,
) -> Problem:
    """The problem that the confined `grant` of the rule `name` needs the guard.

    `why` says why the guard isn't in force, and `decided` is the rule's match.  The hint tells both
    things that an administrator can do about it.
    """
    rule = _rule(grant, subject, enums, decided, unconfined=True)
    return Problem(
        f"rule {quote(name)} is confined, and prog_load then needs the guard, which isn't in "
        f"force: {why}",
        hint="to turn it on, an administrator runs oci-bpf-hook guard on; to do without it, "
        f"{_TRUSTED}, {rule}",
    )


def _rule(
    wanted: Grant,
    subject: "Subject",
    enums: "Mapping[str, Enum]",
    decided: "Mapping[str, Any] | None",
    *,
    unconfined: bool,
) -> str:
    """The rest of a hint: the rule by which an administrator gives `subject` what is `wanted`."""
    lists = ", ".join(
        f"{option}: [{', '.join(_items(mask, enums[option]))}]"
        for option, mask in wanted.masks.items()
    )
    if unconfined:
        lists = f"confined: false, {lists}"
    whom = Whom(subject.named(), _NOTHING if decided is None else decided)
    where = "among the rules" if decided is None else "before that rule"
    # A rule without such a match would decide for all other containers too.
    narrow = "" if whom.narrow else ", with a match that only this container meets,"
    remarks = "".join(f"; {remark}" for remark in whom.remarks)
    return (
        f"an administrator puts {where} in {POLICY} (which, if it is missing, first gets "
        f"what oci-bpf-hook policy show prints){narrow} "
        f"- {{name: NAME, match: {{{whom.text}}}, allow: {{{lists}}}}}{remarks}"
    )


def _items(mask: int, enum: Enum) -> list[str]:
    """The items of a policy's list that mean `mask`; YAML would take a mask for a number."""
    shown = show(mask, enum)
    # bpffs shows "any" if all bits with a name are set, but in a policy "any" means all 64 bits.
    if shown.startswith("any") and mask != ALL_BITS:
        shown = f"{mask:#x}"
    return [f'"{item}"' if item.startswith("0x") else item for item in shown.split(":")]
