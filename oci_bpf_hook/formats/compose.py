"""Reads compose.yaml, the services of the Compose specification."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..delegation.annotations import PREFIX
from ..errors import quote
from ..text.places import Fault, Place, Spot, fault
from .container import TOP, Asker, asker, lacking, no_user_namespace


def is_compose(data: object) -> bool:
    """Whether the document `data` is a Compose file."""
    return isinstance(data, dict) and isinstance(data.get("services"), dict)


def read(
    data: Mapping[str, Any], spots: Mapping[Place, Spot], faults: list[Fault]
) -> Iterator[Asker]:
    """The services of the document `data`; what can't be read is added to `faults`."""
    for name, service in data["services"].items():
        if isinstance(service, dict):
            yield _service(str(name), service, spots, faults)


def _service(
    name: str, service: Mapping[str, Any], spots: Mapping[Place, Spot], faults: list[Fault]
) -> Asker:
    place: Place = ("services", name)
    here = spots.get((*place, "key"), TOP)
    annotations, where = _pairs(service, (*place, "annotations"), spots, faults)
    labels, label_spots = _pairs(service, (*place, "labels"), spots, [])
    doubts = [
        fault(label_spots[key], f"{key} is a label here; put it under annotations")
        for key in labels
        if key.startswith(PREFIX)
    ]
    mode = service.get("userns_mode")
    own = isinstance(mode, str) and mode not in ("", "host")
    added = service.get("cap_add")
    lacks = lacking(
        added if isinstance(added, list) else (),
        spots.get((*place, "cap_add"), here),
        privileged=service.get("privileged") is True,
        user=service.get("user"),
    )
    if not own:
        at = spots.get((*place, "userns_mode"), here)
        lacks.insert(0, no_user_namespace(at, "add userns_mode: auto (podman)"))
    subject: dict[str, object] = {"host_network": service.get("network_mode") == "host"}
    if isinstance(service.get("image"), str):
        subject["image"] = service["image"]
    if isinstance(service.get("container_name"), str):
        subject["container"] = service["container_name"]
    return asker(
        f"service {quote(name)[1:-1]}",
        annotations,
        where,
        here=here,
        subject=subject,
        user_namespace=True if own else None,
        doubts=doubts,
        lacks=lacks,
    )


def _pairs(
    service: Mapping[str, Any], place: Place, spots: Mapping[Place, Spot], faults: list[Fault]
) -> tuple[dict[str, str], dict[str, Spot]]:
    """The pairs in a mapping or a list of KEY=VALUE, and the spots of our annotations in it."""
    given = service.get(str(place[-1]))
    found: dict[str, str] = {}
    where: dict[str, Spot] = {}
    entries: list[tuple[Any, Any, Place]] = []
    if isinstance(given, dict):
        entries = [(key, value, (*place, str(key))) for key, value in given.items()]
    elif isinstance(given, list):
        for number, text in enumerate(given):
            key, _, value = str(text).partition("=")
            entries.append((key, value, (*place, number)))
    for key, value, at in entries:
        ours = isinstance(key, str) and key.startswith(PREFIX)
        spot = spots.get(at, TOP)
        if isinstance(key, str) and isinstance(value, str):
            found[key] = value
            if ours:
                where[key] = spot
        elif ours:
            faults.append(fault(spot, f"the value of {quote(key)} isn't a text; put it in quotes"))
    return found, where
