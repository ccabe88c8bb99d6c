"""Finds what is doubtful about a valid rule: whom it matches, and what it trusts them with.

Each doubt has its place in the rule; `store.file` turns that into a line and a column.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..bpf.names import KINDS, Enum
from ..bpf.type_facts import beyond_confined
from ..delegation.masks import bits
from ..errors import quote
from ..text.places import Place
from ..values import Value
from .origin import OF_USERS, REQUESTER, origin

# The administrator or the kernel says these, but many containers share them, so that a match by
# one of them doesn't narrow a rule.
_SHARED = ("engine", *OF_USERS)
_TRUSTED = "whoever matches is trusted with the kernel"
_NAMED = 8


class Given(Value):
    """What a rule gives: its `allow` as it is written, and the `masks` that come of it.

    `profiles` are the policy's, and `enums` have the names.
    """

    __slots__ = ("allow", "enums", "masks", "profiles")
    allow: Mapping[str, Any]
    masks: Mapping[str, int]
    profiles: Mapping[str, Mapping[str, int]]
    enums: Mapping[str, Enum]


def of(match: Mapping[str, Any], engine: str | None, given: Given) -> Iterator[tuple[Place, str]]:
    """The doubts about a rule with this `match` that gives `given`, each with its place.

    A place begins at the rule.  `engine` is the engine that the policy says runs the hook, or None.
    """
    if not given.allow.get("confined", True):
        yield ("allow", "confined"), _trusted(match, engine)
        return
    said = _said(match, engine)
    if said and not _narrowed(match, engine):
        hint = (
            ""
            if engine
            else "; if the engine that runs the hook sets it, name that engine (engine:)"
        )
        yield (
            ("match",),
            f"{_sets(said)}, and nothing else narrows this rule{hint}",
        )
    for where, what, masks in _parts(given):
        less = {option: mask & given.masks.get(option, 0) for option, mask in masks.items()}
        if never := beyond_confined(less, given.enums):
            yield where, _never_given(what, _names(never, given.enums))


def _trusted(match: Mapping[str, Any], engine: str | None) -> str:
    """The doubt about a rule with `confined: false` and this `match`."""
    if _narrowed(match, engine):
        return _TRUSTED
    if not match:
        return f"this rule matches every container and every user, and {_TRUSTED}"
    if said := _said(match, engine):
        return (
            f"{_sets(said)}, so anybody who may start a container matches, and {_TRUSTED}; match "
            "something that the kernel or the engine says"
        )
    if all(key in OF_USERS and wanted is True for key, wanted in match.items()):
        held = ", ".join(f"{key}: true" for key in match)
        return f"{held} holds for every user of this host, and {_TRUSTED}; match the users by name"
    return (
        f"many containers of root's engines match this rule, and {_TRUSTED}; match something that "
        "only the trusted ones have"
    )


def _parts(given: Given) -> Iterator[tuple[Place, str, Mapping[str, int]]]:
    """Each profile and each item that a rule allows: its place in the rule, its name, its masks."""
    for number, name in enumerate(given.allow.get("profiles", [])):
        yield ("allow", "profiles", number), name, given.profiles.get(name, {})
    for kind in KINDS:
        for number, text in enumerate(given.allow.get(kind.option, [])):
            item = text.strip().lower()
            mask = None if item[:1] == "!" else bits(item, given.enums[kind.option])
            yield ("allow", kind.option, number), item, {kind.option: mask or 0}


def _never_given(what: str, names: list[str]) -> str:
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    if [what] == names:
        said = f"this rule never gives {quote(what)}"
    else:
        listed = ", ".join([*names[:_NAMED], *more])
        said = f"{quote(what)} has {listed}, which this rule never gives"
    return (
        f"{said}, because the rule is confined; leave out {quote(what)}, or trust whoever matches "
        "with the kernel (confined: false)"
    )


def _names(masks: Mapping[str, int], enums: Mapping[str, Enum]) -> list[str]:
    """The names of the bits in `masks`."""
    found = (
        name
        for option, mask in masks.items()
        for value, name in sorted(enums[option].names.items())
        if mask >> value & 1
    )
    # struct_ops is a map type and a program type, and is named once.
    return list(dict.fromkeys(found))


def _sets(said: list[str]) -> str:
    return f"whoever asks can set {', '.join(said)} freely"


def _said(match: Iterable[str], engine: str | None) -> list[str]:
    """The attributes of the `match` that the requester can set."""
    return sorted(key for key in match if origin(key, engine) == REQUESTER)


def _narrowed(match: Mapping[str, Any], engine: str | None) -> bool:
    """Whether the `match` narrows the rule by something that the requester can't set."""
    return any(
        origin(key, engine) != REQUESTER and _narrows(key, wanted) for key, wanted in match.items()
    )


def _narrows(attribute: str, wanted: Any) -> bool:
    """Whether a rule that wants `attribute` to be one of `wanted` matches only some containers."""
    if attribute in ("user", "group"):
        # All containers of root's engines have root as their owner.
        return 0 not in wanted
    if attribute in _SHARED:
        return False
    return attribute == "cdi" or all(one.strip("*") for one in wanted)
