"""Reads what containers are to get, from the configuration of each program that can delegate."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..delegation.annotations import PREFIX, container_name, split
from ..errors import USAGE, HookError, Problem, quote
from ..text.places import Fault
from ..text.strict_json import load_json
from ..values import Value
from . import podman_run
from .beside import Beside
from .container import TOP, Asker
from .delegation import enums
from .faults import raise_if_any, text_of
from .means import PODMAN, Means, means
from .snippets import INCUS, LXD, SYSTEMD
from .unitfile import settings

# A reference to an image.  It has no blank or line end, which could add a setting to a unit file.
_IMAGE = re.compile(r"[\w./:@-]+", re.ASCII)


# The settings of a Quadlet unit that a delegation has, or replaces.
_CONVERTED = ("AddCapability", "Annotation", "ContainerName", "Image", "UserNS")


class Found(Value):
    """One container of a source, with annotations that ask for what it is delegated, and notes.

    `label` is the engine's name for it, which KEY/NAME uses, or None if it has no name yet.
    `capabilities` are those that a command line adds, without CAP_.  `means` are what the source
    gives it to use a delegation, None if the source says nothing.
    """

    __slots__ = ("annotations", "capabilities", "image", "label", "means", "name", "notes")
    name: str
    image: str | None
    label: str | None
    annotations: dict[str, str]
    capabilities: tuple[str, ...]
    means: Means | None
    notes: tuple[str, ...]


def found(
    name: str,
    annotations: Mapping[str, str],
    *,
    image: object = None,
    label: str | None = None,
    capabilities: Iterable[str] = (),
    means: Means | None = None,
    notes: tuple[str, ...] = (),
) -> Found:
    """A Found with copies of the `annotations`, and without an `image` that isn't a reference."""
    return Found(
        name=name,
        image=image if isinstance(image, str) and _IMAGE.fullmatch(image) else None,
        label=label,
        annotations=dict(annotations),
        capabilities=tuple(one.upper().removeprefix("CAP_") for one in capabilities),
        means=means,
        notes=notes,
    )


_SECTION = re.compile(r"^[ \t]*\[[A-Za-z][\w -]*\]", re.MULTILINE)


def annotations(data: bytes, name: str) -> list[Found]:
    """Read lines of KEY=VALUE, or a JSON object."""
    text = text_of(data, name)
    if text.lstrip()[:1] == "{":
        try:
            decoded = load_json(data)
        except ValueError as error:
            raise HookError(USAGE, f"{name}: this isn't JSON: {error}") from None
        if not isinstance(decoded, dict) or not all(isinstance(v, str) for v in decoded.values()):
            raise HookError(USAGE, f"{name}: the values of annotations have to be strings")
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
        else:
            given[key.strip()] = value.strip()
    if len(wrong) > 1 and not given:
        raise HookError(USAGE, f"{name} isn't lines of KEY=VALUE, or a JSON object, as annotations")
    if wrong:
        raise HookError(USAGE, *wrong)
    return [found("container", given)]


def podman_command(data: bytes, name: str) -> list[Found]:
    """Read command lines of `podman run` or `podman create`; others among them are passed over."""
    text = text_of(data, name)
    try:
        said = list(podman_run.commands(text))
    except podman_run.CommandError as error:
        raise HookError(USAGE, f"{name}: {error}") from None
    except ValueError as error:
        raise HookError(USAGE, f"{name}: this isn't a command line: {error}") from None
    unknown = dict.fromkeys(option for one in said for option in one.unknown)
    if unknown:
        raise HookError(
            USAGE,
            *(
                Problem(
                    f"{name}: no known release of podman has the option {option}",
                    hint=f"write {option}=VALUE if it takes a value, or leave it out",
                )
                for option in (quote(one)[1:-1] for one in unknown)
            ),
        )
    return [
        found(
            one.name or "container",
            {key: value for key, value in one.annotations.items() if key.startswith(PREFIX)},
            image=one.image,
            label=one.name,
            capabilities=one.capabilities,
            means=means(
                capabilities=one.capabilities,
                privileged="--privileged" in one.others,
                spot=TOP,
                engine=PODMAN,
            ),
            notes=tuple(_not_converted(one)),
        )
        for one in said
    ]


def _not_converted(one: podman_run.Arguments) -> Iterator[str]:
    """A note for whatever the command line says that isn't converted."""
    others = list(one.others)
    others += ["--annotation"] if any(not key.startswith(PREFIX) for key in one.annotations) else []
    yield from _others(others)
    if one.command:
        yield "the command after the image isn't converted"
    if one.image is not None and not _IMAGE.fullmatch(one.image):
        yield f"the image {quote(one.image)} isn't a reference to an image and isn't converted"
    for key in one.split:
        if key.startswith(PREFIX):
            yield f"{key}: podman 4 splits --annotation at commas; separate the items with colons"


def _others(names: Iterable[str]) -> Iterator[str]:
    """The note that what has these `names` isn't converted, if there are any."""
    listed = ", ".join(quote(name)[1:-1] for name in dict.fromkeys(names))
    if listed:
        yield f"{listed}: not converted; add to the result what the container needs of this"


def manifests(data: bytes, name: str, beside: Beside | None = None) -> list[Found]:
    """Read a Kubernetes manifest, or another file that `containers.read_all` knows."""
    from .containers import read_all

    return [_of_asker(one) for one in read_all(data, name, beside).askers]


def quadlet(data: bytes, name: str, beside: Beside | None = None) -> list[Found]:
    """Read a Quadlet *.container, whatever the file's name is, with its drop-ins; or another unit.

    What is `beside` a file is known only if its name is that of a unit.
    """
    from . import quadlet as unit
    from .containers import read_all
    from .unit import Unit

    known = Unit(name, data)
    if known.is_one() and known.kind:
        whole = read_all(data, name, beside)
        notes = tuple(_others(_other_settings(whole.text))) if known.kind == "container" else ()
        return [_of_asker(one, *notes) for one in whole.askers]
    faults: list[Fault] = []
    text = _unit(data, name, "Container")
    one = unit.read(text, "", faults)
    raise_if_any(faults, name)
    return [_of_asker(one, *_others(_other_settings(text)))]


def _unit(data: bytes, name: str, section: str) -> str:
    """The text of a unit file.  Raises HookError (USAGE) if nothing in it is a section.

    Otherwise each line of a file in another format would be said to be a wrong setting.
    """
    text = text_of(data, name)
    if not _SECTION.search(text):
        raise HookError(USAGE, f"{name} isn't a unit file, which has sections such as [{section}]")
    return text


def _other_settings(text: str) -> Iterator[str]:
    """What isn't converted of the unit file `text`."""
    return (
        f"{setting.key}=" if setting.section == "Container" else f"[{setting.section}]"
        for setting in settings(text, [])
        if setting.section != "Container" or setting.key not in _CONVERTED
    )


def systemd(data: bytes, name: str) -> list[Found]:
    """Read a systemd service, or a drop-in for one."""
    faults: list[Fault] = []
    lists: dict[str, list[str]] = {}
    options = {setting: option for option, setting in SYSTEMD.items()}
    private = False
    for one in settings(_unit(data, name, "Service"), faults):
        if one.key == "PrivateBPF":
            private = one.value.lower() in ("1", "yes", "y", "true", "t", "on")
        elif one.key in options:
            # An empty value clears the list.
            before = lists.get(options[one.key], []) if one.value else []
            lists[options[one.key]] = [*before, one.value] if one.value else []
    raise_if_any(faults, name)
    notes: list[str] = []
    if lists and not private:
        notes.append(
            "without PrivateBPF=yes systemd delegates nothing, but what is printed here does"
        )
    if any("netfilter" in text.lower() for text in lists.get("delegate_progs", ())):
        notes.append(
            "systemd 258 and later take BPFProgTypeNetfilter for the program type syscall; here it "
            "is converted to netfilter"
        )
    stem = name.rpartition("/")[2].partition(".")[0]
    given = {
        PREFIX + option: _kernel_names(option, texts) for option, texts in lists.items() if texts
    }
    return [
        found(stem if re.fullmatch(r"[\w@-]+", stem) else "container", given, notes=tuple(notes))
    ]


def _kernel_names(option: str, texts: list[str]) -> str:
    """The kernel's names for the items in systemd's lists; an unknown item stays as it is."""
    enum = enums()[option]
    items = []
    for item in split(":".join(texts)):
        value = enum.find(item.lower())
        items.append(item if value is None else enum.names[value])
    return ":".join(items)


def incus(data: bytes, name: str) -> list[Found]:
    """Read instances and profiles of Incus, as its client shows them."""
    return _instances(data, name, _incus)


def lxd(data: bytes, name: str) -> list[Found]:
    """Read instances and profiles of LXD, as its client shows them."""
    return _instances(data, name, _lxd)


def _incus(config: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    given = {PREFIX + option: str(config[key]) for option, key in INCUS.items() if config.get(key)}
    if given:
        notes.append(
            "the bpffs that Incus mounts is owned by nobody and has the mode 1777; the hook's is "
            "owned by the container's root"
        )
        if config.get("security.bpffs.path"):
            given[PREFIX + "path"] = str(config["security.bpffs.path"])
    return given


def _lxd(config: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    given = {PREFIX + option: str(config[key]) for option, key in LXD.items() if config.get(key)}
    if given and str(config.get("security.delegate_bpf")).lower() not in ("true", "1", "yes", "on"):
        notes.append(
            "without security.delegate_bpf=true LXD delegates nothing, but what is printed here "
            "does"
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
            # expanded_config includes the profiles' settings; an instance's own override them.
            expanded = one.get("expanded_config")
            merged = {
                **(expanded if isinstance(expanded, dict) else {}),
                **(config if isinstance(config, dict) else {}),
            }
            notes: list[str] = []
            given = take({str(key): value for key, value in merged.items()}, notes)
            result.append(found(str(one.get("name") or "container"), given, notes=tuple(notes)))
    return result


def _of_asker(one: Asker, *more: str) -> Found:
    label = one.subject.get("container") or container_name(one.annotations)
    given = {key: value for key, value in one.annotations.items() if key.startswith(PREFIX)}
    notes = (*(doubt.text for doubt in (*one.doubts, *one.lacks)), *more)
    name = str(label or "container")
    image = one.subject.get("image")
    return found(name, given, image=image, label=name, means=one.means, notes=notes)
