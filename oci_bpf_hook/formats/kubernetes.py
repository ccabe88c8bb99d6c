"""Reads Kubernetes manifests: pods, and objects that make pods from a template."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..delegation.annotations import PREFIX
from ..errors import quote
from ..text.places import Fault, Place, Spot, fault
from .container import TOP, Asker, asker, lacking

_KEY = "io.kubernetes.container.name"
_NO_USER_NAMESPACE = (
    "nothing gives this pod a user namespace, and BPF tokens exist only in one; set hostUsers: "
    "false in its spec"
)


def is_manifest(data: object) -> bool:
    """Whether the document `data` is a Kubernetes object."""
    return isinstance(data, dict) and "kind" in data and "apiVersion" in data


def read(data: object, spots: Mapping[Place, Spot], faults: list[Fault]) -> Iterator[Asker]:
    """The containers that the manifest `data` describes; what is wrong is added to `faults`."""
    yield from _object(data, (), spots, faults)


def _object(
    data: object, place: Place, spots: Mapping[Place, Spot], faults: list[Fault]
) -> Iterator[Asker]:
    if not isinstance(data, dict):
        return
    items = data.get("items")
    if str(data.get("kind", "")).endswith("List") and isinstance(items, list):
        for number, one in enumerate(items):
            yield from _object(one, (*place, "items", number), spots, faults)
        return
    found = _template(data, place)
    if found is None:
        return
    template, where = found
    yield from _Pod(data, template, where, spots, faults).askers(stray=_stray(data, place, where))


def _template(data: dict[str, Any], place: Place) -> tuple[dict[str, Any], Place] | None:
    """The pod that `data` is, or the template that it makes pods from, and its place."""
    if data.get("kind") == "Pod":
        return data, place
    for path in (("spec", "template"), ("spec", "jobTemplate", "spec", "template"), ("template",)):
        at: Any = data
        for key in path:
            at = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict) and isinstance(at.get("spec"), dict):
            return at, (*place, *path)
    return None


def _stray(data: dict[str, Any], place: Place, where: Place) -> list[tuple[str, Place]]:
    """Our annotations on an object that makes pods, which its pods don't get."""
    if where == place:
        return []
    annotations = _mapping(_mapping(data.get("metadata")).get("annotations"))
    keys = (key for key in map(str, annotations) if key.startswith(PREFIX))
    return [(key, (*place, "metadata", "annotations", key, "key")) for key in keys]


class _Pod:
    """A pod or a pod template at `place` in the document, with our annotations in it."""

    def __init__(
        self,
        data: dict[str, Any],
        template: dict[str, Any],
        place: Place,
        spots: Mapping[Place, Spot],
        faults: list[Fault],
    ) -> None:
        self._place = place
        self._spots = spots
        self._faults = faults
        self._spec = _mapping(template.get("spec"))
        outer, inner = _mapping(data.get("metadata")), _mapping(template.get("metadata"))
        self._kind = str(data.get("kind"))
        self._name = str(outer.get("name") or inner.get("name") or "without a name")
        self._namespace = outer.get("namespace") or inner.get("namespace")
        self._given = inner.get("annotations")
        self._annotations: dict[str, str] = {}
        self._where: dict[str, Spot] = {}
        self._read_annotations()

    def askers(self, *, stray: list[tuple[str, Place]]) -> Iterator[Asker]:
        """The pod's containers."""
        doubts = [
            fault(
                self._spot(place),
                f"{key} is on the {self._kind}, and its pods don't get it; put it under "
                "the template's metadata.annotations",
            )
            for key, place in stray
        ]
        containers = list(self._containers())
        names = {name for name, _, _ in containers}
        for key, spot in self._where.items():
            doubts += _doubts_of_key(key, spot, names, self._name)
        for name, data, place in containers:
            yield self._asker(name, data, place, doubts)
            doubts = []  # Only the first container reports them.

    def _asker(
        self,
        name: str,
        data: Mapping[str, Any],
        place: Place,
        doubts: list[Fault],
    ) -> Asker:
        here = self._spot((*place, "name"), place)
        security = _mapping(data.get("securityContext"))
        user = security.get(
            "runAsUser", _mapping(self._spec.get("securityContext")).get("runAsUser")
        )
        added = _mapping(security.get("capabilities")).get("add")
        subject = {
            "container": name,
            "image": data.get("image"),
            "pod": self._name,
            "namespace": self._namespace,
            "host_network": self._spec.get("hostNetwork") is True,
        }
        own = self._spec.get("hostUsers") is False
        lacks = lacking(
            added if isinstance(added, list) else (),
            here,
            privileged=security.get("privileged") is True,
            user=user,
        )
        if not own:
            spot = self._spot((*self._place, "spec", "hostUsers"), (*self._place, "spec"))
            lacks.insert(0, fault(spot, _NO_USER_NAMESPACE))
        # Values of other types are left out, since rules match strings and truth values.
        known = {key: value for key, value in subject.items() if isinstance(value, (str, bool))}
        return asker(
            f"{self._kind} {quote(self._name)[1:-1]}, container {quote(name)[1:-1]}",
            {**self._annotations, _KEY: name},
            self._where,
            here=here,
            subject=known,
            user_namespace=True if own else None,
            doubts=doubts,
            lacks=lacks,
        )

    def _read_annotations(self) -> None:
        place = (*self._place, "metadata", "annotations")
        if self._given is not None and not isinstance(self._given, dict):
            self._faults.append(fault(self._spot(place), "the annotations aren't a mapping"))
        for key, value in _mapping(self._given).items():
            ours = isinstance(key, str) and key.startswith(PREFIX)
            spot = self._spot((*place, str(key)))
            if isinstance(key, str) and isinstance(value, str):
                self._annotations[key] = value
                if ours:
                    self._where[key] = spot
            elif ours:
                self._faults.append(
                    fault(spot, f"the value of {quote(key)} isn't a text; put it in quotes")
                )

    def _containers(self) -> Iterator[tuple[str, Mapping[str, Any], Place]]:
        for key in ("initContainers", "containers"):
            listed = self._spec.get(key)
            for number, data in enumerate(listed if isinstance(listed, list) else ()):
                if isinstance(data, dict):
                    name = str(data.get("name") or f"{key}[{number}]")
                    yield name, data, (*self._place, "spec", key, number)

    def _spot(self, *places: Place) -> Spot:
        return next((spot for place in places if (spot := self._spots.get(place))), TOP)


def _doubts_of_key(key: str, spot: Spot, names: set[str], pod: str) -> Iterator[Fault]:
    """What is doubtful about the annotation `key` of the `pod`, whose containers are `names`."""
    base, slash, container = key.partition("/")
    if not slash:
        return
    short = container.removeprefix(f"{pod}-")
    if container not in names and short in names:
        yield fault(
            spot,
            f"{key}: only podman kube play calls this container {quote(container)}; Kubernetes "
            f"calls it {quote(short)}",
        )
    elif container not in names:
        yield fault(spot, f"{key}: this pod has no container {quote(container)}")
    if "_" in base:
        # In Kubernetes the part of a key before a slash has to be a DNS name.
        yield fault(
            spot,
            f"{key}: Kubernetes refuses a key with _ before its /; make a profile and ask for it "
            f"with {PREFIX}profile/{container}",
        )


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}
