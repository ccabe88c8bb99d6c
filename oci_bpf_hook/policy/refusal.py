"""What to say of a request that the policy refuses: which items, and what rule would allow it."""

from ..bpf.names import ALL_BITS, Enum
from ..bpf.type_facts import beyond_confined
from ..delegation.annotations import PREFIX, Request
from ..delegation.masks import Grant, bits, show
from ..errors import Problem, quote
from ..paths import POLICY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .subject import Subject

_TRUSTED = "which trusts the container with the kernel"
# No name in Kubernetes is longer; the glob of a longer text is cut, and ends in *.
_LONGEST = 253


def items(request: Request, option: str, excess: int, enum: Enum | None) -> list[Problem]:
    """The items of a request that ask for bits of `excess`; each text is the request's words."""
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


def advice(wanted: Grant, subject: "Subject", enums: "Mapping[str, Enum]") -> str:
    """The rule that would allow `wanted`, for an administrator to look at and to paste.

    It is a confined one where that can be.
    """
    unconfined = bool(beyond_confined(wanted.masks, enums))
    said = f", {_TRUSTED}," if unconfined else ""
    return f"to allow it{said} {_rule(wanted, subject, enums, unconfined=unconfined)}"


def without_guard(
    name: str, grant: Grant, why: str, subject: "Subject", enums: "Mapping[str, Enum]"
) -> Problem:
    """Both ways out where the rule `name` gives a confined `grant`, which takes the guard.

    The guard isn't in force, and `why` is the reason.
    """
    rule = _rule(grant, subject, enums, unconfined=True)
    return Problem(
        f"rule {quote(name)} is confined, and so prog_load takes the guard, which isn't "
        f"in force: {why}",
        hint="to turn it on, an administrator runs oci-bpf-hook guard on; to do without it, "
        f"{_TRUSTED}, {rule}",
    )


def _rule(
    wanted: Grant,
    subject: "Subject",
    enums: "Mapping[str, Enum]",
    *,
    unconfined: bool,
) -> str:
    """What an administrator adds for `subject` to have what is `wanted`."""
    lists = ", ".join(
        f"{option}: [{', '.join(_items(mask, enums[option]))}]"
        for option, mask in wanted.masks.items()
    )
    if unconfined:
        lists = f"confined: false, {lists}"
    who = subject.named()
    known = ", ".join(
        f'{attribute}: "{_glob(str(getattr(who, attribute)))}"'
        for attribute in ("cdi", "namespace", "pod", "container")
        if getattr(who, attribute)
    )
    if subject.claimed:
        known = f"user: {subject.user}"
    # A rule for everybody decides for all others as well, and has what this one asks for alone.
    narrow = "" if known else ", with a match that tells this container from others,"
    return (
        f"an administrator puts before that rule in {POLICY} (begun with what oci-bpf-hook policy "
        f"show prints, if there is none){narrow} "
        f"- {{name: NAME, match: {{{known}}}, allow: {{{lists}}}}}"
    )


def _items(mask: int, enum: Enum) -> list[str]:
    """The items of a list that stand for `mask`, each as YAML takes it for a text."""
    shown = show(mask, enum)
    # What bpffs shows for all that the kernel has names for is in a policy all that there ever is.
    if shown.startswith("any") and mask != ALL_BITS:
        shown = f"{mask:#x}"
    return [f'"{item}"' if item.startswith("0x") else item for item in shown.split(":")]


def _glob(text: str) -> str:
    """A glob for `text`: what is more than itself to YAML, or to a glob, is any one character.

    It is the requester's, and no pattern of theirs is to be pasted into a policy.
    """
    plain = "".join("?" if one in '"\\*' or not " " <= one <= "~" else one for one in text)
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}*"
