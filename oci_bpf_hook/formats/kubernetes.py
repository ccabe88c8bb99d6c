"""Reads Kubernetes manifests: pods, and objects that make pods from a template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..delegation.annotations import PREFIX
from ..errors import quote
from ..policy.forms import Form
from ..policy.subject import CLAIMS
from ..text.places import Fault, Place, Spot, fault
from . import pod_means, pod_names, strays
from .container import TOP, Asker, asker
from .means import PODMAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEY = "io.kubernetes.container.name"
_NO_USER_NAMESPACE = (
    "nothing gives this pod a user namespace, and BPF tokens exist only in one; set hostUsers: "
    "false in its spec"
)
_NO_USER_NAMESPACE_BY_PODMAN = (
    "nothing here gives this pod a user namespace, and BPF tokens exist only in one; play it with "
    "podman kube play --userns=auto, or put UserNS=auto into its *.kube"
)


def is_manifest(data: object) -> bool:
    """Whether the document `data` is a Kubernetes object."""
    return isinstance(data, dict) and "kind" in data and "apiVersion" in data


def read(
    data: object,
    spots: Mapping[Place, Spot],
    faults: list[Fault],
    others: list[str],
    *,
    engine: str | None = None,
    users: bool = False,
) -> Iterator[Asker]:
    """The containers that the manifest `data` describes; what is wrong is added to `faults`.

    Objects that make no pods are added to `others`, unless they have annotations of ours: then
    there is something to be said about these.  If `engine` is podman the containers are those that
    `podman kube play` makes of it.  `users` says that something else than the manifest gives its
    pods a user namespace.
    """
    for one, place in _objects(data):
        found = _template(one, place)
        if found is None:
            yield from _without_pods(one, place, spots, others)
            continue
        template, where = found
        pod = _Pod(one, template, (place, where), spots, faults, engine=engine, users=users)
        yield from pod.askers()


def _objects(data: object) -> Iterator[tuple[dict[str, Any], Place]]:
    """The object `data`, or those in it if it is a list, and their places."""
    left: list[tuple[object, Place]] = [(data, ())]
    while left:
        one, place = left.pop()
        if not isinstance(one, dict):
            continue
        items = one.get("items")
        if str(one.get("kind", "")).endswith("List") and isinstance(items, list):
            inside = [(item, (*place, "items", number)) for number, item in enumerate(items)]
            left += reversed(inside)
        else:
            yield one, place


def _without_pods(
    data: dict[str, Any], place: Place, spots: Mapping[Place, Spot], others: list[str]
) -> Iterator[Asker]:
    """The requests that an object has which makes no pods, as far as we know."""
    kind = str(data.get("kind") or "an object without a kind")
    name = (
        f"{kind} {quote(str(_mapping(data.get('metadata')).get('name') or 'without a name'))[1:-1]}"
    )
    found = list(strays.find(data, place))
    if not found:
        others.append(name)
    elif strays.is_custom(data.get("apiVersion")):
        # Whoever acts on the object may give these annotations to pods.
        for annotations, at in found:
            yield strays.asked(name, data, annotations, at, spots)
    else:
        doubts = [doubt for given, at in found for doubt in strays.useless(name, given, at, spots)]
        yield asker(name, {}, {}, here=spots.get(place, TOP), doubts=doubts)


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


class _Pod:
    """A pod or a pod template, with our annotations in it.

    `data` is the object and `template` the pod that it is or makes; `places` are theirs in the
    document.
    """

    def __init__(
        self,
        data: dict[str, Any],
        template: dict[str, Any],
        places: tuple[Place, Place],
        spots: Mapping[Place, Spot],
        faults: list[Fault],
        *,
        engine: str | None,
        users: bool,
    ) -> None:
        self._users = users
        self._outer, self._place = places
        self._data = data
        self._spots = spots
        self._faults = faults
        self._spec = _mapping(template.get("spec"))
        self._metadata = outer = _mapping(data.get("metadata"))
        inner = _mapping(template.get("metadata"))
        self._kind = str(data.get("kind"))
        self._name = str(outer.get("name") or inner.get("name") or "without a name")
        self._namespace = outer.get("namespace") or inner.get("namespace")
        self._engine = engine
        self._containers = list(self._read_containers())
        self._podmans = {
            name: pod_names.of_podman(self._kind, data, name) for name, _, _ in self._containers
        }
        self._by_podman = engine == "podman" or (engine is None and self._is_podmans())
        # podman gives containers the annotations of a Deployment itself and not its template's.
        self._stray = inner if self._by_podman else outer
        self._given = (outer if self._by_podman else inner).get("annotations")
        self._labels = [
            (key, (*self._place, "metadata", "labels", key, "key"))
            for key in map(str, _mapping(inner.get("labels")))
            if key.startswith(PREFIX)
        ]
        self._annotations: dict[str, str] = {}
        self._where: dict[str, Spot] = {}
        self._read_annotations()

    def _is_podmans(self) -> bool:
        """Whether keys of the object's annotations have only names that podman gives."""
        named = {
            str(key).partition("/")[2]
            for key in _mapping(self._metadata.get("annotations"))
            if str(key).startswith(PREFIX) and "/" in str(key)
        }
        podmans = {name for names in self._podmans.values() for name in names}
        return not named.isdisjoint(podmans) and named.isdisjoint(self._podmans)

    def askers(self) -> Iterator[Asker]:
        """The pod's containers."""
        doubts = list(self._strays())
        doubts += [
            fault(self._spot(at), f"{key} is a label here; put it under annotations")
            for key, at in self._labels
        ]
        if self._engine == "podman":
            doubts += self._doubts_of_podman()
        else:
            for key, spot in self._where.items():
                doubts += _doubts_of_key(key, spot, self._podmans)
        for name, data, place in self._containers:
            yield self._asker(name, data, place, doubts)
            doubts = []  # Only the first container reports them.

    def _strays(self) -> Iterator[Fault]:
        """A doubt for each of our annotations that is in a place where no container gets it."""
        if self._outer == self._place:
            return
        where = self._place if self._by_podman else self._outer
        for key in map(str, _mapping(self._stray.get("annotations"))):
            if not key.startswith(PREFIX):
                continue
            spot = self._spot((*where, "metadata", "annotations", key, "key"))
            if self._by_podman:
                yield fault(
                    spot,
                    f"{key} is on the template, and podman kube play gives its containers only "
                    f"what the {self._kind} itself has; put it under the {self._kind}'s "
                    "metadata.annotations",
                )
            else:
                yield fault(
                    spot,
                    f"{key} is on the {self._kind}, and its pods don't get it; put it under "
                    "the template's metadata.annotations",
                )

    def _doubts_of_podman(self) -> Iterator[Fault]:
        """What is doubtful about the object if podman plays it."""
        podmans = {name for names in self._podmans.values() for name in names}
        if self._podmans and not podmans and self._where:
            yield fault(
                self._spot((*self._outer, "kind")),
                f"podman kube play makes no containers from this {self._kind}",
            )
            return
        for key, spot in self._where.items():
            container = key.partition("/")[2]
            if not container or container in podmans:
                continue
            if names := self._podmans.get(container):
                yield fault(
                    spot,
                    f"{key}: podman kube play calls this container {quote(names[0])}; only "
                    f"Kubernetes calls it {quote(container)}",
                )
            else:
                yield fault(spot, f"{key}: this pod has no container {quote(container)}")

    def _names(self, container: str) -> tuple[dict[str, object], dict[str, Form], dict[str, str]]:
        """The names of a pod's `container` and of the pod: those that are known, and the others.

        The last are what stands in a rule for a name that was made up.
        """
        names: dict[str, object] = {"pod": self._name, "namespace": self._namespace}
        if self._by_podman:
            names["container"], *others = self._podmans[container] or (container,)
            if not others:
                return names, {}, {}
            names.pop("container")
            unsure = pod_names.of_podmans_deployment(self._kind, self._podmans[container])
            return names, {"container": unsure}, {}
        names["container"] = container
        form = pod_names.of_template(self._kind, self._data)
        if form is None:
            lasting = pod_names.lasting(self._metadata)
            return names, {}, {"pod": lasting} if lasting else {}
        names.pop("pod")
        return names, {"pod": form}, {}

    def _asker(
        self,
        name: str,
        data: Mapping[str, Any],
        place: Place,
        doubts: list[Fault],
    ) -> Asker:
        here = self._spot((*place, "name"), place)
        names, forms, globs = self._names(name)
        subject = {
            **names,
            "image": data.get("image"),
            "host_network": self._spec.get("hostNetwork") is True,
        }
        own = self._users or self._spec.get("hostUsers") is False
        pod = pod_means.Pod(self._spec, self._annotations, self._place, self._spot)
        lacks = [] if self._by_podman else list(pod.refused())
        if not own and not pod.by_cri_o():
            spot = self._spot((*self._place, "spec", "hostUsers"), (*self._place, "spec"))
            by_podman = self._engine == "podman"
            why = _NO_USER_NAMESPACE_BY_PODMAN if by_podman else _NO_USER_NAMESPACE
            lacks.insert(0, fault(spot, why))
        # Values of other types are left out, since rules match strings and truth values.
        known = {key: value for key, value in subject.items() if isinstance(value, (str, bool))}
        return asker(
            f"{self._kind} {quote(self._name)[1:-1]}, container {quote(name)[1:-1]}",
            self._annotations if self._by_podman else {**self._annotations, _KEY: name},
            self._where,
            here=here,
            subject=known,
            told=("container",) if self._by_podman else CLAIMS,
            forms=forms,
            globs=globs,
            named=self._spot((*self._outer, "metadata", "name"), (*self._outer, "metadata")),
            user_namespace=True if own else None,
            doubts=doubts,
            lacks=lacks,
            means=pod.means(data, place, here, engine=PODMAN if self._by_podman else None),
        )

    def _read_annotations(self) -> None:
        place = (*(self._outer if self._by_podman else self._place), "metadata", "annotations")
        if self._given is not None and not isinstance(self._given, dict):
            self._faults.append(fault(self._spot(place), "the annotations aren't a mapping"))
        for key, value in _mapping(self._given).items():
            ours = isinstance(key, str) and key.startswith(PREFIX)
            if isinstance(key, str) and isinstance(value, str):
                self._annotations[key] = value
                if ours:
                    self._where[key] = self._spot((*place, key))
            elif ours:
                text = f"the value of {quote(key)} isn't a text; put it in quotes"
                self._faults.append(fault(self._spot((*place, key)), text))

    def _read_containers(self) -> Iterator[tuple[str, Mapping[str, Any], Place]]:
        for key in ("initContainers", "containers", "ephemeralContainers"):
            listed = self._spec.get(key)
            for number, data in enumerate(listed if isinstance(listed, list) else ()):
                if isinstance(data, dict):
                    name = str(data.get("name") or f"{key}[{number}]")
                    yield name, data, (*self._place, "spec", key, number)

    def _spot(self, *places: Place) -> Spot:
        for place in places:
            if spot := self._spots.get(place):
                return spot
        return TOP


def _doubts_of_key(key: str, spot: Spot, names: Mapping[str, tuple[str, ...]]) -> Iterator[Fault]:
    """What is doubtful about the annotation `key` of a pod.

    `names` are those of its containers, each with those that podman gives it.
    """
    base, slash, container = key.partition("/")
    if not slash:
        return
    short = next((name for name, podmans in names.items() if container in podmans), None)
    if container not in names and short is not None:
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
