"""Needs in the form in which somebody grants them: podman, a policy, Kubernetes, Incus, systemd.

Names of programs and files come from somebody else: characters that aren't printable become `?`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping

from ..annotations import PREFIX
from ..names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Enum
from .needs import CAPABILITY, LISTS, Needs, as_json

_Lists = Mapping[str, list[str]]

_SYSTEMD = {
    CMDS.option: "BPFDelegateCommands",
    MAPS.option: "BPFDelegateMaps",
    PROGS.option: "BPFDelegatePrograms",
    ATTACHS.option: "BPFDelegateAttachments",
}

_NOT_A_NAME = re.compile(r"[^a-z0-9-]+")


def name_of(text: str, otherwise: str) -> str:
    """A name for a profile or container, as policies and Kubernetes accept it, from any text."""
    return _NOT_A_NAME.sub("-", text.lower()).strip("-")[:63].rstrip("-") or otherwise


def render(form: str, needs: Needs, enums: Mapping[str, Enum], name: str) -> str:
    """`needs` in one of FORMS; `name` is the name for its profile or container."""
    return "\n".join(_FORMS[form](needs, enums, name))


def left_out(form: str, needs: Needs) -> list[str]:
    """What to beware of, a line each, if `form` is to be pasted and has no place for it."""
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
    # One word a line, without quotes or spaces, so that podman run $(...) takes them as they are.
    lists = needs.lists(enums)
    for name in _shown(CAPABILITY, lists):
        yield f"--cap-add={name}"
    for key, text in _keys(lists):
        yield f"--annotation={key}={text}"


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
    lists = needs.lists(enums)
    yield "[Container]"
    yield "UserNS=auto"
    if lists[CAPABILITY]:
        yield f"AddCapability={' '.join(_shown(CAPABILITY, lists))}"
    for key, text in _keys(lists):
        yield f"Annotation={key}={text}"


def _kubernetes(needs: Needs, enums: Mapping[str, Enum], name: str) -> Iterator[str]:
    lists = needs.lists(enums)
    yield "metadata:"
    yield "  annotations:"
    for key, text in _keys(lists):
        yield f"    {key}: {text}"
    yield "spec:"
    yield "  hostUsers: false"
    yield "  containers:"
    yield f"    - name: {_yaml(name)}"
    yield "      securityContext:"
    yield "        capabilities:"
    yield f"          add: [{', '.join(_shown(CAPABILITY, lists))}]"


def _incus(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    # Incus's containers have all capabilities of their user namespace.
    lists = needs.lists(enums)
    yield "config:"
    for kind in KINDS:
        if lists[kind.option]:
            yield f"  security.bpffs.{kind.option}: {','.join(lists[kind.option])}"


def _systemd(needs: Needs, enums: Mapping[str, Enum], _: str) -> Iterator[str]:
    lists = needs.lists(enums)
    yield "[Service]"
    yield "PrivateUsers=yes"
    yield "PrivateMounts=yes"
    yield "DelegateNamespaces=mnt"
    yield "PrivateBPF=yes"
    for kind in KINDS:
        if kind is PROGS and "netfilter" in lists[kind.option]:
            yield "# systemd 258 to 261 delegates syscall for BPFProgTypeNetfilter."
        if lists[kind.option]:
            names = (_camel(kind.prefix + name) for name in lists[kind.option])
            yield f"{_SYSTEMD[kind.option]}={','.join(names)}"


def _keys(lists: _Lists) -> Iterator[tuple[str, str]]:
    """The annotations, by key."""
    for kind in KINDS:
        if lists[kind.option]:
            yield PREFIX + kind.option, ":".join(lists[kind.option])


def _shown(option: str, lists: _Lists) -> list[str]:
    names = lists[option]
    return [name.upper() for name in names] if option == CAPABILITY else names


def _camel(name: str) -> str:
    prefix, *words = name.split("_")
    return prefix + "".join(word.capitalize() for word in words)


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
