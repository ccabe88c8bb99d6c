"""What a program needs, bit by bit, each with the reason for it.

`advise` finds the reasons in compiled objects, `record` in the calls of a running program.
Everything else is derived from the reasons here: the lists, the masks, the union of several
programs, the share of each, the difference between two, and the JSON form
(`schema/advise.schema.json`) that both commands write and read.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..bpf import capabilities
from ..bpf.names import KINDS, Enum
from ..values import Value

# The capabilities that BPF under a token asks for, as recordings and advice name them.
CAPABILITIES = {name.lower(): number for name, number in capabilities.CAPABILITIES.items()}
CAPABILITY = "capabilities"
LISTS = (*(kind.option for kind in KINDS), CAPABILITY)

# The kinds of things that ask for a bit.
PROGRAM = "program"
MAP = "map"
DATA = "data"
BTF = "btf"
PROBE = "probe"
CALL = "call"
KINDS_OF_REASON = (PROGRAM, MAP, DATA, BTF, PROBE, CALL)
# A caution's code, as the schema has it.
_CODE = re.compile(r"[a-z0-9-]+")


class NeedsError(ValueError):
    """The data isn't the JSON form of needs."""


class Reason(NamedTuple):
    """The reason for one bit, or for one capability.

    `option` is one of LISTS and `name` the kernel's short name of the bit in it; `source` is the
    object file, or the command, whose program asks; `kind` is one of KINDS_OF_REASON; `why` tells
    people which program, map or probe asks, and what it does with the bit.
    """

    option: str
    name: str
    source: str
    kind: str
    why: str


class Caution(NamedTuple):
    """What no delegation can give, or what this one gives too much; `code` is for programs."""

    code: str
    source: str
    text: str


class Needs(Value):
    """The reasons for every bit, in the order found, and what to beware of."""

    __slots__ = ("reasons", "warnings")
    reasons: tuple[Reason, ...]
    warnings: tuple[Caution, ...]

    def __or__(self, other: "Needs") -> "Needs":
        return make(
            reasons=(*self.reasons, *other.reasons), warnings=(*self.warnings, *other.warnings)
        )

    @property
    def bits(self) -> frozenset[tuple[str, str]]:
        """Every bit and capability, as (option, name)."""
        return frozenset((reason.option, reason.name) for reason in self.reasons)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of these needs, in the order found."""
        found = [one.source for one in self.reasons] + [one.source for one in self.warnings]
        return tuple(dict.fromkeys(found))

    def shares(self) -> dict[str, "Needs"]:
        """The needs of each source alone."""
        reasons: dict[str, list[Reason]] = {source: [] for source in self.sources}
        warnings: dict[str, list[Caution]] = {source: [] for source in reasons}
        for reason in self.reasons:
            reasons[reason.source].append(reason)
        for warning in self.warnings:
            warnings[warning.source].append(warning)
        return {
            source: Needs(reasons=tuple(reasons[source]), warnings=tuple(warnings[source]))
            for source in reasons
        }

    def why(self, option: str, name: str) -> tuple[Reason, ...]:
        """The reasons for one bit."""
        return tuple(one for one in self.reasons if (one.option, one.name) == (option, name))

    def without(self, bits: Iterable[tuple[str, str]]) -> "Needs":
        """The same needs without the reasons for these (option, name)."""
        taken = frozenset(bits)
        reasons = (one for one in self.reasons if (one.option, one.name) not in taken)
        return Needs(reasons=tuple(reasons), warnings=self.warnings)

    def lists(self, enums: Mapping[str, Enum]) -> dict[str, list[str]]:
        """The names in each of LISTS, sorted by their values in `enums`."""
        names: dict[str, set[str]] = {option: set() for option in LISTS}
        for reason in self.reasons:
            names[reason.option].add(reason.name)
        return {
            option: sorted(names[option], key=lambda name: _value(option, name, enums))
            for option in LISTS
        }

    def masks(self, enums: Mapping[str, Enum]) -> dict[str, int]:
        """The mask of each `delegate_*` option that isn't 0."""
        masks: dict[str, int] = {}
        for option, name in self.bits:
            if option != CAPABILITY:
                masks[option] = masks.get(option, 0) | 1 << _value(option, name, enums)
        return masks


def make(*, reasons: Iterable[Reason], warnings: Iterable[Caution]) -> Needs:
    """The Needs with these reasons and warnings, each once."""
    return Needs(reasons=tuple(dict.fromkeys(reasons)), warnings=tuple(dict.fromkeys(warnings)))


NOTHING = Needs(reasons=(), warnings=())


def union(needs: Iterable[Needs]) -> Needs:
    """What all of them need together."""
    found = list(needs)
    return make(
        reasons=(reason for one in found for reason in one.reasons),
        warnings=(warning for one in found for warning in one.warnings),
    )


def difference(one: Needs, other: Needs, enums: Mapping[str, Enum]) -> dict[str, list[str]]:
    """What is in `one` and not in `other`, by list; empty lists are left out."""
    lists = one.without(other.bits).lists(enums)
    return {option: names for option, names in lists.items() if names}


def _value(option: str, name: str, enums: Mapping[str, Enum]) -> int:
    if option == CAPABILITY:
        return CAPABILITIES[name]
    return enums[option].values[name]


# ------------------------------------------------------------------------ the JSON form


def as_json(needs: Needs, enums: Mapping[str, Enum]) -> dict[str, Any]:
    """The JSON form of `needs`; `enums` tells the order of names."""
    return {
        **needs.lists(enums),
        "reasons": [
            {
                "option": one.option,
                "name": one.name,
                "source": one.source,
                "kind": one.kind,
                "why": one.why,
            }
            for one in needs.reasons
        ],
        "warnings": [
            {"code": one.code, "source": one.source, "text": one.text} for one in needs.warnings
        ],
    }


def from_json(data: Any, enums: Mapping[str, Enum]) -> Needs:
    """The Needs whose JSON form `data` is.  Raises NeedsError.

    A name in the lists without a reason gets one: people write such files by hand, too.
    """
    if not isinstance(data, dict):
        raise NeedsError("it isn't a JSON object")
    reasons = [Reason(**_strings(one, Reason)) for one in _list(data, "reasons")]
    warnings = [Caution(**_strings(one, Caution)) for one in _list(data, "warnings")]
    explained = {(one.option, one.name) for one in reasons}
    listed = [(option, name) for option in LISTS for name in _words(data, option)]
    reasons += [
        Reason(option=option, name=name, source="", kind=CALL, why="it is in the list")
        for option, name in listed
        if (option, name) not in explained
    ]
    for reason in reasons:
        if reason.kind not in KINDS_OF_REASON:
            kinds = ", ".join(KINDS_OF_REASON)
            raise NeedsError(f"{reason.kind!r:.64} isn't one of the kinds {kinds}")
    for warning in warnings:
        if not _CODE.fullmatch(warning.code):
            raise NeedsError(f"{warning.code!r:.64} isn't a warning's code")
    for option, name in (*listed, *explained):
        known = CAPABILITIES if option == CAPABILITY else _known(option, enums)
        if name not in known:
            raise NeedsError(f"{option}: {name!r:.64} isn't a name that is known")
    return make(reasons=reasons, warnings=warnings)


def _known(option: str, enums: Mapping[str, Enum]) -> Mapping[str, int]:
    if option not in enums:
        raise NeedsError(f"{option!r:.64} isn't one of {', '.join(LISTS)}")
    return enums[option].values


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    found = data.get(key, [])
    if not isinstance(found, list):
        raise NeedsError(f"{key} isn't a list")
    return found


def _words(data: Mapping[str, Any], key: str) -> list[str]:
    found = _list(data, key)
    if not all(isinstance(one, str) for one in found):
        raise NeedsError(f"{key} isn't a list of names")
    return found


def _strings(data: Any, form: type[Reason | Caution]) -> dict[str, str]:
    keys = form._fields
    if not isinstance(data, dict) or {key for key in data if isinstance(data[key], str)} != {*keys}:
        raise NeedsError(f"a {form.__name__.lower()} has {', '.join(keys)}, all of them strings")
    return {key: data[key] for key in keys}
