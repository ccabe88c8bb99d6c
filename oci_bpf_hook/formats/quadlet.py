"""Reads Quadlet's *.container files, which podman-systemd.unit(5) describes."""

from ..delegation.annotations import PREFIX
from ..errors import quote
from ..text.places import Fault, Spot
from . import podman_run
from .container import TOP, Asker, asker, lacking, no_user_namespace
from .unitfile import Setting, settings, words

_SUBJECT = {"Image": "image", "ContainerName": "container"}
_USER_NAMESPACE = ("UserNS", "UIDMap", "SubUIDMap", "RemapUsers")


class _Unit:
    """What the settings of a [Container] section say, as they are added one by one."""

    def __init__(self) -> None:
        self.annotations: dict[str, str] = {}
        self.where: dict[str, Spot] = {}
        self.subject: dict[str, object] = {"host_network": False}
        self.capabilities: list[str] = []
        self.user: str | None = None
        self.user_namespace = False

    def add(self, one: Setting, faults: list[Fault]) -> None:
        if one.key == "Annotation":
            self._annotate(dict(_pair(word) for word in words(one, faults)), one.spot)
        elif one.key == "PodmanArgs":
            arguments = podman_run.arguments(words(one, faults))
            self._annotate(arguments.annotations, one.spot)
            self.capabilities += arguments.capabilities
            self.user_namespace |= arguments.user_namespace
        elif one.key == "AddCapability":
            self.capabilities += words(one, faults)
        elif one.key in _USER_NAMESPACE:
            self.user_namespace |= one.value not in ("", "host")
        elif one.key == "Network":
            self.subject["host_network"] = one.value == "host"
        elif one.key in _SUBJECT:
            self.subject[_SUBJECT[one.key]] = one.value
        elif one.key == "User":
            self.user = one.value

    def _annotate(self, annotations: dict[str, str], spot: Spot) -> None:
        self.annotations |= annotations
        self.where |= {key: spot for key in annotations if key.startswith(PREFIX)}


def _pair(word: str) -> tuple[str, str]:
    # % begins a specifier of systemd's, and %% stands for the character itself.
    key, _, value = word.replace("%%", "%").partition("=")
    return key, value


def read(text: str, name: str, faults: list[Fault]) -> Asker:
    """The container of the unit file `text`, called `name` unless the file names it otherwise.

    Lines that aren't settings are added to `faults`.
    """
    unit = _Unit()
    here = TOP
    for one in settings(text, faults):
        if one.section == "Container":
            here = one.spot if here is TOP else here
            unit.add(one, faults)
    lacks = lacking(unit.capabilities, here, user=unit.user)
    if not unit.user_namespace:
        lacks.insert(0, no_user_namespace(here, "add UserNS=auto"))
    return asker(
        f"container {quote(str(unit.subject.get('container', name)))[1:-1]}",
        unit.annotations,
        unit.where,
        here=here,
        subject=unit.subject,
        user_namespace=True if unit.user_namespace else None,
        lacks=lacks,
    )
