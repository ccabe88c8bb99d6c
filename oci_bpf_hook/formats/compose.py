"""Reads compose.yaml, the services of the Compose specification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..delegation.annotations import PREFIX
from ..errors import quote
from ..policy.forms import ANY, Form, Part, form
from ..policy.whom import literally
from ..text.places import Fault, Place, Spot, fault
from .container import TOP, Asker, asker, no_user_namespace
from .means import Means, Mount, is_our_device, is_shared, means, volume
from .pod_names import ordinals

# No Compose file has more containers, but a number may have any number of digits.
_MOST = 1 << 31
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_compose(data: object) -> bool:
    """Whether the document `data` is a Compose file."""
    return isinstance(data, dict) and isinstance(data.get("services"), dict)


def read(
    data: Mapping[str, Any], spots: Mapping[Place, Spot], faults: list[Fault]
) -> Iterator[Asker]:
    """The services of the document `data`; what can't be read is added to `faults`."""
    project = data.get("name")
    known = project if isinstance(project, str) else None
    for name, service in data["services"].items():
        if isinstance(service, dict):
            yield _service(str(name), service, spots, faults, known)


def _service(
    name: str,
    service: Mapping[str, Any],
    spots: Mapping[Place, Spot],
    faults: list[Fault],
    project: str | None,
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
    lacks = []
    if not own:
        at = spots.get((*place, "userns_mode"), here)
        host = "userns_mode: host" if mode == "host" else ""
        add = "set it to auto (podman)" if host else "add userns_mode: auto (podman)"
        lacks.append(no_user_namespace(at, add, host=host))
    subject: dict[str, object] = {"host_network": service.get("network_mode") == "host"}
    if isinstance(service.get("image"), str):
        subject["image"] = service["image"]
    container = _container(name, service, project)
    if isinstance(container, str):
        subject["container"] = container
    else:
        doubts += _doubts_of_name(name, container, where)
    return asker(
        f"service {quote(name)[1:-1]}",
        annotations,
        where,
        here=here,
        subject=subject,
        told=("container",),
        forms={} if isinstance(container, str) else {"container": container},
        named=here,
        user_namespace=True if own else None,
        doubts=doubts,
        lacks=lacks,
        means=_means(service, place, spots),
    )


def _container(name: str, service: Mapping[str, Any], project: str | None) -> str | Form:
    """What the container of the service `name` is called, or the Form of that.

    docker compose puts - between the parts, podman-compose and older releases put _.
    """
    given = service.get("container_name")
    advice = ""
    if _count(service) == 1:
        # Compose refuses it beside several containers.
        advice = "container_name in the service gives the container a name that is known"
    if isinstance(given, str) and given and "$" not in given:
        return given
    what = f"the name of a container of the service {quote(name)[1:-1]}"
    if isinstance(given, str) and given:
        # A variable stands in it.
        return form(what, [(*given.partition("$")[0], ANY)], advice=advice)
    first: tuple[Part, ...] = (ANY,) if project is None or "$" in project else tuple(project)
    numbers = tuple(ordinals(1, _count(service)))
    parts = [(*first, mark, *name, mark, *one) for mark in "-_" for one in numbers]
    glob = "" if ANY in first else f"{literally(str(project))}?{literally(name)}?*"
    return form(what, parts, glob=glob, advice=advice)


def _doubts_of_name(name: str, container: Form, where: Mapping[str, Spot]) -> Iterator[Fault]:
    """A doubt for each of our annotations that takes the service's `name` for the container's."""
    for key, spot in where.items():
        base, _, container_name = key.partition("/")
        if container_name == name:
            yield fault(
                spot,
                f"{key} is for a container called {quote(name)}, but this service's container is "
                f"called {quote(container.example)} or the like; "
                + ("give the service a container_name" if container.advice else f"use {base}"),
            )


def _count(service: Mapping[str, Any]) -> int:
    """How many containers the service has."""
    deploy = service.get("deploy")
    count = service.get("scale", deploy.get("replicas") if isinstance(deploy, dict) else None)
    return count if type(count) is int and 0 < count <= _MOST else 1


def _means(service: Mapping[str, Any], place: Place, spots: Mapping[Place, Spot]) -> Means:
    here = spots.get((*place, "key"), TOP)
    environment = service.get("environment")
    if isinstance(environment, list):
        pairs = [str(one).partition("=") for one in environment]
        environment = {key: value if equals else None for key, equals, value in pairs}
    return means(
        capabilities=_list(service, "cap_add"),
        dropped=_list(service, "cap_drop"),
        privileged=service.get("privileged") is True,
        spot=spots.get((*place, "cap_add"), here),
        user=service.get("user"),
        user_spot=spots.get((*place, "user"), here),
        environment=environment if isinstance(environment, dict) else {},
        unread="env_file" in service or any(map(is_our_device, _list(service, "devices"))),
        mounts=_volumes(service, place, spots),
    )


def _volumes(
    service: Mapping[str, Any], place: Place, spots: Mapping[Place, Spot]
) -> Iterator[Mount]:
    for number, one in enumerate(_list(service, "volumes")):
        spot = spots.get((*place, "volumes", number), TOP)
        if isinstance(one, str):
            yield volume(one, spot)
        elif isinstance(one, dict) and one.get("type") != "tmpfs":
            source, path, bind = one.get("source"), one.get("target"), one.get("bind")
            if isinstance(path, str):
                yield Mount(
                    path=path,
                    shared=isinstance(bind, dict) and is_shared([bind.get("propagation")]),
                    source=source if isinstance(source, str) else None,
                    spot=spot,
                )


def _list(service: Mapping[str, Any], key: str) -> list[Any]:
    found = service.get(key)
    return found if isinstance(found, list) else []


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
