"""Prints kfuncs.json as tables in Markdown, for people who read what the guard lets programs call.

The tables are for docs/guard.md.  The guard itself gets its lists from the file and not from here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .lists import data

# What a helper reaches: kfuncs.json's word, and the document's.
_REACH = {
    "process": "processes",
    "network": "network namespaces",
    "cgroup": "cgroups",
    "kernel": "the kernel",
}
# The helpers whose names are listed without anything else, under what they have in common.
_NAMED = {
    "harmless": "Helpers for a program's own packet, maps, sockets and memory, and for clocks",
    "perfmon": "Helpers that take CAP_PERFMON, which no confined token has",
    "others": "Helpers for types of programs that no confined token loads",
}


def markdown() -> str:
    """All the tables, each below a heading of its own, with a line break at the end."""
    return "\n".join(_lines(data()))


def _lines(loaded: Mapping[str, Any]) -> Iterable[str]:
    everything = {name for name, one in loaded["types"].items() if one["allowed"]}
    yield from _section("Capabilities that count", _allowed(loaded["capabilities"]))
    yield from _section("Types of programs", _allowed(loaded["types"]))
    yield from _section("Types of maps", _allowed(loaded["maps"]))
    yield from _section("Kernel functions that may be called", _kfuncs(loaded, everything))
    yield from _section(
        "Kernel functions that may be missed, and why they are refused", _refused(loaded)
    )
    yield from _section("Helpers that are refused", _helpers(loaded, everything, closed=True))
    yield from _section(
        "The other helpers, and what they reach", _helpers(loaded, everything, closed=False)
    )
    for part, heading in _NAMED.items():
        yield f"### {heading}"
        yield ""
        yield ", ".join(f"`bpf_{name}`" for name in loaded[part])
        yield ""


def _section(heading: str, rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """A heading and a table; the first row has the names of the columns."""
    yield f"### {heading}"
    yield ""
    for number, row in enumerate(rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        if not number:
            yield "|" + " --- |" * len(row)
    yield ""


def _allowed(those: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    yield "name", "allowed", "why"
    for name, one in those.items():
        yield f"`{name}`", "yes" if one["allowed"] else "no", one["why"]


def _kfuncs(loaded: Mapping[str, Any], everything: set[str]) -> Iterable[Sequence[str]]:
    yield "function", "since", "for programs of the types", "what it does", "read in"
    for name, one in loaded["kfuncs"].items():
        types = _types(one["types"], everything)
        yield f"`{name}`", one["since"], types, one["why"], f"`{one['source']}`"


def _refused(loaded: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    yield "function", "why"
    for name, why in loaded["refused_on_purpose"].items():
        yield f"`{name}`", why


def _helpers(
    loaded: Mapping[str, Any], everything: set[str], *, closed: bool
) -> Iterable[Sequence[str]]:
    yield "helper", "reaches", "in programs of the types", "why"
    for name, one in loaded["helpers"].items():
        if one["closed"] is closed:
            why = " ".join([one["why"], *([one["elsewhere"]] if "elsewhere" in one else [])])
            types = _types(one["types"], everything)
            yield f"`bpf_{name}` ({one['number']})", _REACH[one["reach"]], types, why


def _types(types: Sequence[str] | str, everything: set[str]) -> str:
    """The `types` by name, or all but those that are missing, if these are fewer."""
    if types == "all" or set(types) == everything:
        return "all"
    rest = sorted(everything.difference(types))
    if len(rest) < len(types):
        return "all but " + ", ".join(f"`{name}`" for name in rest)
    return ", ".join(f"`{name}`" for name in types)
