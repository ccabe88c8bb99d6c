"""Finds annotations of ours in Kubernetes objects that make no pods, as far as we know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..delegation.annotations import PREFIX
from ..policy.forms import ANY, form
from ..text.places import Fault, Place, Spot, fault
from . import pod_names
from .container import TOP, Asker, asker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Groups of the kinds that Kubernetes itself has, beside those that end with _OWN.
_CORE = ("", "apps", "autoscaling", "batch", "extensions", "policy")
_OWN = ".k8s.io"
# Its commonAnnotations may be for pods of any file beside it.
_KUSTOMIZATION = "Kustomization"


def is_custom(version: object) -> bool:
    """Whether `version`, an apiVersion, isn't one of Kubernetes' own."""
    group, slash, _ = str(version).rpartition("/")
    return bool(slash) and group not in _CORE and not group.endswith(_OWN)


def find(data: dict[str, Any], place: Place) -> Iterator[tuple[dict[Any, Any], Place]]:
    """The mappings in `data`, which is at `place`, that have keys of ours, in their order."""
    left: list[tuple[Any, Place]] = [(data, place)]
    # With aliases the same mapping may be in many places.
    seen: set[int] = set()
    while left:
        one, at = left.pop()
        if not isinstance(one, dict | list) or id(one) in seen:
            continue
        seen.add(id(one))
        inside = one.items() if isinstance(one, dict) else enumerate(one)
        if isinstance(one, dict) and any(_is_ours(key) for key in one):
            yield one, at
        left += reversed([(value, (*at, key)) for key, value in inside])


def useless(
    name: str, given: dict[Any, Any], place: Place, spots: Mapping[Place, Spot]
) -> Iterator[Fault]:
    """A doubt for each annotation in `given`, which the object `name` has for nothing."""
    why = (
        "which makes no pods; put it under the metadata.annotations of a pod, or of the template "
        "of what makes pods"
    )
    if name.partition(" ")[0] == _KUSTOMIZATION:
        why = "which kubectl kustomize DIRECTORY renders; check what that prints"
    for key in filter(_is_ours, given):
        yield fault(spots.get((*place, key, "key"), TOP), f"{key} is on the {name}, {why}")


def asked(
    name: str,
    data: dict[str, Any],
    given: dict[Any, Any],
    place: Place,
    spots: Mapping[Place, Spot],
) -> Asker:
    """What the custom resource `data`, called `name`, asks for if a pod gets what is `given`.

    The pod is in the same namespace, and nobody knows what its containers are called.
    """
    kind = str(data.get("kind"))
    annotations = {
        key: value
        for key, value in given.items()
        if isinstance(key, str) and isinstance(value, str)
    }
    where = {key: spots.get((*place, key), TOP) for key in annotations if _is_ours(key)}
    here = spots.get((*place, "key"), spots.get(place, TOP))
    text = (
        f"only the controller of the kind {kind} decides whether a pod gets these annotations; "
        "check the pods that it makes"
    )
    doubts = [fault(here, text)]
    doubts += [
        fault(spots.get((*place, key), TOP), f"the value of {key} isn't a text; put it in quotes")
        for key, value in given.items()
        if _is_ours(key) and not isinstance(value, str)
    ]
    metadata = data.get("metadata")
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    pod = pod_names.of_template(kind, data)
    container = form(f"the names of the containers of the {name}", [(ANY,)])
    return asker(
        name,
        annotations,
        where,
        here=here,
        subject={"namespace": namespace} if isinstance(namespace, str) else {},
        forms={"container": container, **({"pod": pod} if pod else {})},
        named=here,
        doubts=doubts,
    )


def _is_ours(key: object) -> bool:
    return isinstance(key, str) and key.startswith(PREFIX)
