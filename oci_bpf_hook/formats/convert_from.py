"""What containers get, by the configuration of each program that can be told to delegate."""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from ..delegation.annotations import PREFIX, container_name, split
from ..errors import USAGE, HookError, quote
from ..text.places import Fault
from ..text.strict_json import load_json
from ..values import Value
from . import podman_run
from .container import Asker
from .delegation import enums
from .faults import raise_if_any, text_of
from .snippets import INCUS, LXD, SYSTEMD
from .unitfile import settings

# A reference to an image: no blank, and no line's end to go on behind.
_IMAGE = re.compile(r"[\w./:@-]+", re.ASCII)


class Found(Value):
    """One container of a source: its annotations, or what is as good as them, and notes.

    `label` is what the engine calls it for KEY/NAME, None where it has no name yet.
    """

    __slots__ = ("annotations", "image", "label", "name", "notes")
    name: str
    image: str | None
    label: str | None
    annotations: dict[str, str]
    notes: tuple[str, ...]


def found(
    name: str,
    annotations: Mapping[str, str],
    *,
    image: object = None,
    label: str | None = None,
    notes: tuple[str, ...] = (),
) -> Found:
    return Found(
        name=name,
        image=image if isinstance(image, str) and _IMAGE.fullmatch(image) else None,
        label=label,
        annotations=dict(annotations),
        notes=notes,
    )


def annotations(data: bytes, name: str) -> list[Found]:
    """Lines of KEY=VALUE, or a JSON object."""
    text = text_of(data, name)
    if text.lstrip()[:1] == "{":
        try:
            decoded = load_json(data)
        except ValueError as error:
            raise HookError(USAGE, f"{name}: this is no JSON: {error}") from None
        if not isinstance(decoded, dict) or not all(isinstance(v, str) for v in decoded.values()):
            raise HookError(USAGE, f"{name}: the values of annotations are strings")
        return [found("container", decoded)]
    given: dict[str, str] = {}
    wrong: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        plain = line.strip()
        if not plain or plain[0] == "#":
            continue
        key, equals, value = plain.partition("=")
        if not equals:
            wrong.append(f"{name}:{number}:1: {quote(plain)} should be KEY=VALUE")
        given[key.strip()] = value.strip()
    if wrong:
        raise HookError(USAGE, *wrong)
    return [found("container", given)]


def podman_command(data: bytes, name: str) -> list[Found]:
    """A command line of podman's."""
    try:
        # To shlex a line that goes on in the next one is no different from an escaped character.
        words = shlex.split(text_of(data, name).replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise HookError(USAGE, f"{name}: this is no command line: {error}") from None
    said = podman_run.arguments(words)
    return [found(said.name or "container", said.annotations, label=said.name)]


def manifests(data: bytes, name: str) -> list[Found]:
    """A Kubernetes manifest, and whatever else `read` knows."""
    from .containers import read

    return [_of_asker(one) for one in read(data, name)]


def quadlet(data: bytes, name: str) -> list[Found]:
    """A Quadlet *.container, whatever its name."""
    from . import quadlet as unit

    faults: list[Fault] = []
    stem = name.rpartition("/")[2].partition(".")[0]
    one = unit.read(text_of(data, name), stem or "container", faults)
    raise_if_any(faults, name)
    return [_of_asker(one)]


def systemd(data: bytes, name: str) -> list[Found]:
    """A service, or a drop-in for one."""
    faults: list[Fault] = []
    lists: dict[str, list[str]] = {}
    options = {setting: option for option, setting in SYSTEMD.items()}
    private = False
    for one in settings(text_of(data, name), faults):
        if one.key == "PrivateBPF":
            private = one.value.lower() in ("1", "yes", "y", "true", "t", "on")
        elif one.key in options:
            # An empty value takes back what was there.
            before = lists.get(options[one.key], []) if one.value else []
            lists[options[one.key]] = [*before, one.value] if one.value else []
    raise_if_any(faults, name)
    notes: list[str] = []
    if lists and not private:
        notes.append("without PrivateBPF=yes systemd mounts nothing, and this would delegate")
    if any("netfilter" in text.lower() for text in lists.get("delegate_progs", ())):
        notes.append(
            "systemd 258 to 261 takes BPFProgTypeNetfilter for the program type syscall; what is "
            "written is netfilter, and that it is here"
        )
    stem = name.rpartition("/")[2].partition(".")[0]
    given = {
        PREFIX + option: _kernel_names(option, texts) for option, texts in lists.items() if texts
    }
    return [
        found(stem if re.fullmatch(r"[\w@-]+", stem) else "container", given, notes=tuple(notes))
    ]


def _kernel_names(option: str, texts: list[str]) -> str:
    """What systemd's list has, by the kernel's names; what is unknown stays as it is."""
    enum = enums()[option]
    items = []
    for item in split(":".join(texts)):
        value = enum.find(item.lower())
        items.append(item if value is None else enum.names[value])
    return ":".join(items)


def incus(data: bytes, name: str) -> list[Found]:
    """Instances and profiles of Incus, as its client shows them."""
    return _instances(data, name, _incus)


def lxd(data: bytes, name: str) -> list[Found]:
    """Instances and profiles of LXD, as its client shows them."""
    return _instances(data, name, _lxd)


def _incus(config: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    given = {PREFIX + option: str(config[key]) for option, key in INCUS.items() if config.get(key)}
    if given:
        notes.append(
            "under Incus the bpffs is nobody's, with the mode 1777; by the hook it is the "
            "container's root's"
        )
        if config.get("security.bpffs.path"):
            given[PREFIX + "path"] = str(config["security.bpffs.path"])
    return given


def _lxd(config: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    given = {PREFIX + option: str(config[key]) for option, key in LXD.items() if config.get(key)}
    if given and str(config.get("security.delegate_bpf")).lower() not in ("true", "1", "yes", "on"):
        notes.append(
            "without security.delegate_bpf=true LXD mounts nothing, and this would delegate"
        )
    return given


def _instances(
    data: bytes, name: str, take: Callable[[Mapping[str, Any], list[str]], dict[str, str]]
) -> list[Found]:
    from .yaml_documents import documents

    faults: list[Fault] = []
    parsed = documents(data, faults)
    raise_if_any(faults, name)
    result: list[Found] = []
    for document, _ in parsed:
        for one in document if isinstance(document, list) else [document]:
            if not isinstance(one, dict):
                continue
            config = one.get("config")
            # A profile's are in what is expanded, and an instance's own win.
            expanded = one.get("expanded_config")
            merged = {
                **(expanded if isinstance(expanded, dict) else {}),
                **(config if isinstance(config, dict) else {}),
            }
            notes: list[str] = []
            given = take({str(key): value for key, value in merged.items()}, notes)
            result.append(found(str(one.get("name") or "container"), given, notes=tuple(notes)))
    return result


def _of_asker(one: Asker) -> Found:
    label = one.subject.get("container") or container_name(one.annotations)
    given = {key: value for key, value in one.annotations.items() if key.startswith(PREFIX)}
    notes = tuple(doubt.text for doubt in (*one.doubts, *one.lacks))
    name = str(label or "container")
    image = one.subject.get("image")
    return found(name, given, image=image, label=name, notes=notes)
