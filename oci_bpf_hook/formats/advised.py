"""Prints needs in the form in which they are granted: podman, a policy, Kubernetes, Incus, systemd.

Names of programs and files may be hostile, so characters in them that aren't printable become `?`.
"""

import json
from collections.abc import Callable, Iterator, Mapping

from ..advise.needs import CAPABILITY, LISTS, Needs, as_json
from ..bpf.names import KINDS, Enum
from ..delegation.annotations import PREFIX
from . import snippets

_Lists = Mapping[str, list[str]]


def render(form: str, needs: Needs, enums: Mapping[str, Enum], name: str) -> str:
    """`needs` in one of FORMS; `name` is the name of the profile or container that is printed."""
    return "\n".join(_FORMS[form](needs, enums, name))


def left_out(form: str, needs: Needs) -> list[str]:
    """A line for each warning of `needs` that has no place in `form`."""
    return [] if form in _WITH_WARNINGS else [f"beware: {text}" for text in _warnings(needs)]


def _warnings(needs: Needs) -> Iterator[str]:
    for warning in needs.warnings:
        yield f"{_plain(warning.source)}: {warning.code}: {_plain(warning.text)}"


def _text(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    lists = needs.lists(enums)
    for option in LISTS:
        yield f"{option}: {', '.join(_shown(option, lists)) or 'none'}"
    reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in needs.reasons:
        by_source = reasons.setdefault((one.option, one.name), {})
        by_source.setdefault(one.source, []).append(one.why)
    for option in LISTS:
        for name in lists[option]:
            yield ""
            yield f"{option} {name.upper() if option == CAPABILITY else name}"
            for source, why in reasons[option, name].items():
                yield f"  {_plain(source)}"
                yield from (f"    {_plain(text)}" for text in why)
    if len(needs.sources) > 1:
        for source, alone in needs.shares().items():
            yield ""
            yield f"{_plain(source)} alone"
            share = alone.lists(enums)
            for option in LISTS:
                if share[option]:
                    yield f"  {option}: {', '.join(_shown(option, share))}"
    if needs.warnings:
        yield ""
        yield "beware"
        yield from (f"  {text}" for text in _warnings(needs))


def _annotations(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    # Each line is one word without quotes or spaces, so that podman run $(...) takes it as it is.
    for option, value in snippets.podman_options(*_asked(needs, enums)):
        yield f"{option}={value}"


def _json(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    yield json.dumps(as_json(needs, enums), indent=2)


def _policy(needs: Needs, enums: Mapping[str, Enum], name: str) -> Iterator[str]:
    lists = needs.lists(enums)
    capabilities = ", ".join(_shown(CAPABILITY, lists))
    yield "profiles:"
    yield f"  {_yaml(name)}:"
    yield f"    comment: for programs with {capabilities or 'no capability'}"
    for kind in KINDS:
        if lists[kind.option]:
            yield f"    {kind.option}: [{', '.join(lists[kind.option])}]"


def _quadlet(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    yield "[Container]"
    yield from snippets.quadlet_settings(*_asked(needs, enums))


def _kubernetes(needs: Needs, enums: Mapping[str, Enum], name: str) -> Iterator[str]:
    metadata, spec = snippets.kubernetes_pod(name, None, *_asked(needs, enums))
    yield snippets.as_yaml({"metadata": metadata, "spec": spec}).rstrip("\n")


def _incus(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    # No capabilities are added, since Incus's containers have all of their user namespace.
    yield snippets.as_yaml({"config": snippets.incus_config(_names(needs, enums))}).rstrip("\n")


def _systemd(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    lists = _names(needs, enums)
    yield "[Service]"
    yield from (f"# {note}" for note in snippets.systemd_notes(lists))
    yield from snippets.systemd_settings(lists)


def _asked(needs: Needs, enums: Mapping[str, Enum]) -> tuple[dict[str, str], list[str]]:
    """The annotations that ask for it, and the capabilities."""
    annotations = {
        PREFIX + option: ":".join(names) for option, names in _names(needs, enums).items() if names
    }
    return annotations, _shown(CAPABILITY, needs.lists(enums))


def _names(needs: Needs, enums: Mapping[str, Enum]) -> _Lists:
    """The names to delegate, by their option."""
    lists = needs.lists(enums)
    return {kind.option: lists[kind.option] for kind in KINDS}


def _shown(option: str, lists: _Lists) -> list[str]:
    names = lists[option]
    return [name.upper() for name in names] if option == CAPABILITY else names


def _yaml(name: str) -> str:
    # Words that YAML would take for a truth value or a number are quoted.
    plain = name[0].isalpha() and name not in ("true", "false", "null", "yes", "no", "on", "off")
    return name if plain else json.dumps(name)


def _plain(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


_Form = Callable[[Needs, Mapping[str, Enum], str], Iterator[str]]
_FORMS: dict[str, _Form] = {
    "text": _text,
    "annotations": _annotations,
    "json": _json,
    "policy": _policy,
    "quadlet": _quadlet,
    "kubernetes": _kubernetes,
    "incus": _incus,
    "systemd": _systemd,
}
FORMS = tuple(_FORMS)
_WITH_WARNINGS = ("text", "json")
