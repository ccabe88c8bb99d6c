"""What is doubtful about a rule that is valid: whom it is for, and what it trusts them with.

`policyfile` knows where in the file that is.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import policy
from .errors import quote
from .lint import beyond_confined
from .masks import bits
from .names import KINDS, Enum
from .places import Place
from .record import Record

# The kernel's word, and yet what many have in common: these tell nobody from anybody else.
_SHARED = ("engine", "host_cgroup", "host_network", "rootless")
# What of that the broker finds to be so of whatever a user asks for.
_OF_USERS = ("host_cgroup", "host_network", "rootless")
_TRUSTED = "whoever matches is trusted with the kernel"
_NAMED = 8


class Given(Record):
    """What a rule's `allow` gives: the `masks`, of `profiles` and items by the `enums`' names."""

    __slots__ = ("allow", "enums", "masks", "profiles")
    allow: Mapping[str, Any]
    masks: Mapping[str, int]
    profiles: Mapping[str, Mapping[str, int]]
    enums: Mapping[str, Enum]


def of(match: Mapping[str, Any], engine: str | None, given: Given) -> Iterator[tuple[Place, str]]:
    """The doubts about a rule for whom the `match` holds, each with its place in the rule."""
    if not given.allow.get("confined", True):
        yield ("allow", "confined"), _trusted(match, engine)
        return
    said = _said(match, engine)
    if said and not _narrowed(match, engine):
        hint = "" if engine else "; say which engine runs the hook (engine:), if that sets it"
        yield (
            ("match",),
            f"{_sets(said)}, and nothing else narrows this rule{hint}",
        )
    for where, what, masks in _parts(given):
        less = {option: mask & given.masks.get(option, 0) for option, mask in masks.items()}
        if never := beyond_confined(less, given.enums):
            yield where, _never_given(what, _names(never, given.enums))


def _trusted(match: Mapping[str, Any], engine: str | None) -> str:
    """What `confined: false` means for whom the `match` holds."""
    if _narrowed(match, engine):
        return _TRUSTED
    if not match:
        return f"this rule is for every container and every user there is, and {_TRUSTED}"
    if said := _said(match, engine):
        return (
            f"{_sets(said)}, so that anybody who may start a container matches, and {_TRUSTED}; "
            "match what the kernel or the engine vouches for"
        )
    if all(key in _OF_USERS and wanted is True for key, wanted in match.items()):
        held = ", ".join(f"{key}: true" for key in match)
        return (
            f"{held} holds for every user of this host, and {_TRUSTED}; match these users by name"
        )
    return (
        f"nothing here tells one container of root's from another, and {_TRUSTED}; match what does"
    )


def _parts(given: Given) -> Iterator[tuple[Place, str, Mapping[str, int]]]:
    """Each profile and item of an allow, with its place in the rule and its masks."""
    for number, name in enumerate(given.allow.get("profiles", [])):
        yield ("allow", "profiles", number), name, given.profiles.get(name, {})
    for kind in KINDS:
        for number, text in enumerate(given.allow.get(kind.option, [])):
            item = text.strip().lower()
            mask = None if item[:1] == "!" else bits(item, given.enums[kind.option])
            yield ("allow", kind.option, number), item, {kind.option: mask or 0}


def _never_given(what: str, names: list[str]) -> str:
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    has = "" if [what] == names else f" has {', '.join([*names[:_NAMED], *more])}, which"
    return (
        f"{quote(what)}{has} a confined token is never given, and so this rule doesn't give it; "
        "leave it out, or trust whoever matches with the kernel (confined: false)"
    )


def _names(masks: Mapping[str, int], enums: Mapping[str, Enum]) -> list[str]:
    """The names of what `masks` have, as far as it has any."""
    found = (
        name
        for option, mask in masks.items()
        for value, name in sorted(enums[option].names.items())
        if mask >> value & 1
    )
    # The map type and the program type struct_ops are one thing.
    return list(dict.fromkeys(found))


def _sets(said: list[str]) -> str:
    return f"whoever asks sets {', '.join(said)} as he likes"


def _said(match: Iterable[str], engine: str | None) -> list[str]:
    """What of the `match` whoever asks sets."""
    return sorted(key for key in match if policy.origin(key, engine) == policy.REQUESTER)


def _narrowed(match: Mapping[str, Any], engine: str | None) -> bool:
    """Whether somebody else than who asks tells whom the `match` is for from anybody else."""
    return any(
        policy.origin(key, engine) != policy.REQUESTER and _narrows(key, wanted)
        for key, wanted in match.items()
    )


def _narrows(attribute: str, wanted: Any) -> bool:
    """Whether it tells somebody from anybody else that `attribute` is one of those `wanted`."""
    if attribute in ("user", "group"):
        # Of every container of an engine that is root's, the owner is root.
        return 0 not in wanted
    if attribute in _SHARED:
        return False
    return attribute == "cdi" or all(one.strip("*") for one in wanted)
