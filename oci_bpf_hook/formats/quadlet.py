"""Reads the section [Container] of Quadlet's unit files (podman-systemd.unit(5))."""

from collections.abc import Iterable, Iterator, Sequence

from ..delegation.annotations import PREFIX
from ..errors import quote
from ..policy.forms import ANY, Part, form
from ..text.places import Fault, Spot, fault
from . import podman_run
from .container import TOP, Asker, asker, no_user_namespace
from .podman_means import LISTS, QUADLET, Options
from .unitfile import Setting, in_force, settings, words

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
        self.pod: Setting | None = None
        self.users: Setting | None = None
        self.doubts: list[Fault] = []

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
            self._label(_labels(given), one.spot)
        elif one.key == "Label":
            self._label(words(one, faults), one.spot)
        elif one.key == "Pod":
            self.pod = one
        elif one.key == "ServiceName":
            self.service = one.value
        elif one.key == "AddCapability":
            self.capabilities += words(one, faults)
        elif one.key in _USER_NAMESPACE:
            mapped = one.key != "UserNS" and self.user_namespace
            self.user_namespace = mapped or one.value not in ("", "host")
            self.users = one
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

    def _label(self, labels: Iterable[str], spot: Spot) -> None:
        keys = (_pair(label)[0] for label in labels)
        self.doubts += [
            fault(spot, f"{key} is a label here; put it under Annotation=")
            for key in keys
            if key.startswith(PREFIX)
        ]


def _labels(words: Sequence[str]) -> Iterator[str]:
    """The labels that the options of podman-run(1) among the `words` add."""
    for before, word in zip(("", *words), words, strict=False):
        if before in ("--label", "-l"):
            yield word
        elif word.startswith("--label="):
            yield word.removeprefix("--label=")


def _pair(word: str) -> tuple[str, str]:
    # % begins a specifier of systemd's, and %% stands for the character itself.
    key, _, value = word.replace("%%", "%").partition("=")
    return key, value


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


def has_users(given: Iterable[Setting]) -> bool:
    """Whether these settings of a container, a pod or a kube unit give it a user namespace."""
    return any(one.key in _USER_NAMESPACE and one.value != "host" for one in given)


def read(
    text: str,
    name: str,
    faults: list[Fault],
    *,
    pod_users: bool | None = None,
    drop_in: bool = False,
) -> Asker:
    """The container of the unit file `text`, of the unit `name`, which is empty if nobody knows.

    Lines that aren't settings are added to `faults`.  `pod_users` says whether the pod of the
    container has a user namespace, and is None if that isn't known.  A `drop_in` alone doesn't say
    what the container lacks.
    """
    unit = _Unit()
    here = TOP
    for one in in_force(settings(text, faults)):
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
    own = bool(pod_users) if unit.pod else unit.user_namespace
    if unit.pod and unit.users:
        unit.doubts.append(fault(unit.users.spot, _beside_pod(unit.users.key, unit.pod.value)))
    elif not own:
        lacks.append(_no_user_namespace(here, unit.pod, unit.users))
    return asker(
        f"container {quote(str(given or name or 'without a name'))[1:-1]}",
        unit.annotations,
        unit.where,
        here=here,
        subject=unit.subject,
        told=("container",),
        forms=forms,
        named=here,
        user_namespace=True if own else None,
        doubts=unit.doubts,
        lacks=() if drop_in else lacks,
        means=None if drop_in else unit.options.means(unit.capabilities, here),
    )


def _beside_pod(key: str, pod: str) -> str:
    return (
        f"podman refuses {key}= beside Pod={pod}, since a container has its pod's user namespace; "
        f"put it into the section [Pod] of {pod}"
    )


def _no_user_namespace(here: Spot, pod: Setting | None, users: Setting | None) -> Fault:
    if pod is None and users is not None and users.value == "host":
        return no_user_namespace(users.spot, "set UserNS=auto", host=f"{users.key}=host")
    if pod is None:
        return no_user_namespace(here, "add UserNS=auto")
    add = f"put UserNS=auto into the section [Pod] of {pod.value}"
    return no_user_namespace(pod.spot, f"{add}, whose user namespace the container has")
