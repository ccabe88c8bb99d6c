"""What is doubtful about a valid rule: whom it matches, and what it trusts them with.

`policyfile` knows the doubt's place in the file.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..bpf.names import KINDS, Enum
from ..bpf.type_facts import beyond_confined
from ..delegation.masks import bits
from ..errors import quote
from ..text.places import Place
from ..values import Value
from .subject import OF_USERS, REQUESTER, origin

# The kernel tells these, but many containers have them in common: they narrow nothing.
_SHARED = ("engine", *OF_USERS)
_TRUSTED = "whoever matches is trusted with the kernel"
_NAMED = 8


class Given(Value):
    """What a rule's `allow` gives: the `masks` of `profiles` and items, by the names of `enums`."""

    __slots__ = ("allow", "enums", "masks", "profiles")
    allow: Mapping[str, Any]
    masks: Mapping[str, int]
    profiles: Mapping[str, Mapping[str, int]]
    enums: Mapping[str, Enum]


def of(match: Mapping[str, Any], engine: str | None, given: Given) -> Iterator[tuple[Place, str]]:
    """The doubts about a rule with this `match`, each with its place in the rule."""
    if not given.allow.get("confined", True):
        yield ("allow", "confined"), _trusted(match, engine)
        return
    said = _said(match, engine)
    if said and not _narrowed(match, engine):
        hint = (
            ""
            if engine
            else ("; name the engine that runs the hook (engine:), if that engine sets it")
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
    """What `confined: false` means for those whom the `match` holds for."""
    if _narrowed(match, engine):
        return _TRUSTED
    if not match:
        return f"this rule matches every container and every user, and {_TRUSTED}"
    if said := _said(match, engine):
        return (
            f"{_sets(said)}, so anybody who may start a container matches, and {_TRUSTED}; match "
            "something that the kernel or the engine vouches for"
        )
    if all(key in OF_USERS and wanted is True for key, wanted in match.items()):
        held = ", ".join(f"{key}: true" for key in match)
        return (
            f"{held} holds for every user of this host, and {_TRUSTED}; match these users by name"
        )
    return f"nothing here tells root's containers apart, and {_TRUSTED}; match something that does"


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
        f"{quote(what)}{has} a confined token is never given, so this rule doesn't give it; leave "
        "it out, or trust whoever matches with the kernel (confined: false)"
    )


def _names(masks: Mapping[str, int], enums: Mapping[str, Enum]) -> list[str]:
    """The names of the bits in `masks`."""
    found = (
        name
        for option, mask in masks.items()
        for value, name in sorted(enums[option].names.items())
        if mask >> value & 1
    )
    # The map type and the program type struct_ops are one thing.
    return list(dict.fromkeys(found))


def _sets(said: list[str]) -> str:
    return f"whoever asks can set {', '.join(said)} freely"


def _said(match: Iterable[str], engine: str | None) -> list[str]:
    """Those attributes of the `match` that whoever asks can set."""
    return sorted(key for key in match if origin(key, engine) == REQUESTER)


def _narrowed(match: Mapping[str, Any], engine: str | None) -> bool:
    """Whether the `match` narrows the rule by something that whoever asks can't set."""
    return any(
        origin(key, engine) != REQUESTER and _narrows(key, wanted) for key, wanted in match.items()
    )


def _narrows(attribute: str, wanted: Any) -> bool:
    """Whether it narrows a rule that `attribute` is one of those `wanted`."""
    if attribute in ("user", "group"):
        # For every container of root's engines the owner is root.
        return 0 not in wanted
    if attribute in _SHARED:
        return False
    return attribute == "cdi" or all(one.strip("*") for one in wanted)
