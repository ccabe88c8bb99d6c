"""Reads Quadlet's *.container files, which podman-systemd.unit(5) describes."""

from collections.abc import Iterator

from ..delegation.annotations import PREFIX
from ..errors import quote
from ..policy.forms import ANY, Part, form
from ..text.places import Fault, Spot
from . import podman_run
from .container import TOP, Asker, asker, no_user_namespace
from .podman_means import LISTS, QUADLET, Options
from .unitfile import Setting, settings, words

_SUBJECT = {"Image": "image", "ContainerName": "container"}
_USER_NAMESPACE = ("UserNS", "UIDMap", "SubUIDMap", "RemapUsers")
# What Quadlet calls a container for which the file has no name (podman-systemd.unit(5)).
_DEFAULT = "systemd-%N"
_DEFAULT_OF_TEMPLATE = "systemd-%p_%i"


class _Unit:
    """What the settings of a [Container] section say, as they are added one by one."""

    def __init__(self) -> None:
        self.annotations: dict[str, str] = {}
        self.where: dict[str, Spot] = {}
        self.subject: dict[str, object] = {"host_network": False}
        self.capabilities: list[str] = []
        self.options = Options()
        self.user_namespace = False
        self.name: str | None = None
        self.service: str | None = None

    def add(self, one: Setting, faults: list[Fault]) -> None:
        if one.key == "Annotation":
            self._annotate(dict(_pair(word) for word in words(one, faults)), one.spot)
        elif one.key == "PodmanArgs":
            given = words(one, faults)
            arguments = podman_run.arguments(given)
            self.options.add_arguments(given, one.spot)
            self._annotate(arguments.annotations, one.spot)
            self.capabilities += arguments.capabilities
            self.user_namespace |= arguments.user_namespace
            self.name = arguments.name or self.name
        elif one.key == "ServiceName":
            self.service = one.value
        elif one.key == "AddCapability":
            self.capabilities += words(one, faults)
        elif one.key in _USER_NAMESPACE:
            self.user_namespace |= one.value not in ("", "host")
        elif one.key == "Network":
            self.subject["host_network"] = one.value == "host"
        elif one.key in _SUBJECT:
            self.subject[_SUBJECT[one.key]] = one.value
        elif one.key in QUADLET:
            listed = words(one, faults) if one.key in LISTS else [one.value]
            for word in listed:
                self.options.add(QUADLET[one.key], word.replace("%%", "%"), one.spot)

    def _annotate(self, annotations: dict[str, str], spot: Spot) -> None:
        self.annotations |= annotations
        self.where |= {key: spot for key in annotations if key.startswith(PREFIX)}


def _pair(word: str) -> tuple[str, str]:
    # % begins a specifier of systemd's, and %% stands for the character itself.
    key, _, value = word.replace("%%", "%").partition("=")
    return key, value


def unit_name(path: str) -> str:
    """The name of the unit that the file at `path` is for; empty if that isn't a *.container."""
    name, dot, _ = path.rpartition("/")[2].rpartition(".container")
    return name if dot else ""


def _parts(text: str, unit: str) -> Iterator[Part]:
    """The parts of a container's name with the specifiers of systemd's in `text`, in the `unit`."""
    prefix, template, instance = unit.partition("@")
    unknown = template and not instance
    known = {"N": unit, "n": f"{unit}.service", "p": prefix, "P": prefix, "%": "%"}
    if not unknown:
        known |= {"i": instance, "I": instance}
    before, *rest = text.replace("%%", "\0").split("%")
    yield from before.replace("\0", "%")
    for piece in rest:
        said = known.get(piece[:1], "")
        if unknown and piece[:1] in "Nn":
            yield from (*unit, ANY)
        elif not unit or piece[:1] not in known:
            yield ANY
        else:
            yield from said
        yield from piece[1:].replace("\0", "%")


def read(text: str, name: str, faults: list[Fault]) -> Asker:
    """The container of the unit file `text`, of the unit `name`, which is empty if nobody knows.

    Lines that aren't settings are added to `faults`.
    """
    unit = _Unit()
    here = TOP
    for one in settings(text, faults):
        if one.section == "Container":
            here = one.spot if here is TOP else here
            unit.add(one, faults)
    given = unit.subject.get("container")
    default = _DEFAULT_OF_TEMPLATE if "@" in name else _DEFAULT
    # podman takes the last --name, and what is in PodmanArgs comes after what Quadlet writes.
    parts = tuple(_parts(unit.name or str(given or default), unit.service or name))
    unit.subject.pop("container", None)
    forms = {}
    if all(len(part) == 1 for part in parts):
        unit.subject["container"] = "".join(parts)
    else:
        forms["container"] = form("the name of this unit's container", [parts])
    lacks = []
    if not unit.user_namespace:
        lacks.append(no_user_namespace(here, "add UserNS=auto"))
    return asker(
        f"container {quote(str(given or name or 'without a name'))[1:-1]}",
        unit.annotations,
        unit.where,
        here=here,
        subject=unit.subject,
        told=("container",),
        forms=forms,
        named=here,
        user_namespace=True if unit.user_namespace else None,
        lacks=lacks,
        means=unit.options.means(unit.capabilities, here),
    )
