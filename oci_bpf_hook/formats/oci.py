"""Reads OCI's own files: a bundle's config.json, and the state that a runtime gives a hook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..delegation.annotations import PREFIX, container_name
from ..errors import BAD_STATE, HookError, quote
from ..oci.state import annotations_of, remounted
from ..text.places import Place, Spot
from .container import TOP, Asker, asker
from .means import Means, Mount, is_shared, means

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_state(data: object) -> bool:
    """Whether the decoded JSON `data` is a state rather than a config.json."""
    return isinstance(data, dict) and {"bundle", "status", "pid"} & data.keys() != set()


def is_config(data: object) -> bool:
    """Whether the decoded JSON `data` is a config.json."""
    return isinstance(data, dict) and {"process", "root", "linux", "mounts"} & data.keys() != set()


def read_state(data: object, spots: Mapping[Place, Spot], name: str) -> tuple[Asker, ...]:
    """The container of the state `data`, whose values are at `spots` of the file `name`."""
    annotations = _annotations(data, name)
    assert isinstance(data, dict)  # _annotations has checked it.
    where = _where(annotations, spots)
    # If the hook is in the container crun gives the pid 0 and runc 1.
    inside = data.get("pid") in (0, 1)
    return (asker(_name(annotations, data.get("id")), annotations, where, inside=inside),)


def read_config(data: object, spots: Mapping[Place, Spot], name: str) -> tuple[Asker, ...]:
    """The container of the config.json `data`, whose values are at `spots` of the file `name`."""
    annotations = _annotations(data, name)
    assert isinstance(data, dict)  # _annotations has checked it.
    linux = _mapping(data.get("linux"))
    namespaces = {
        one.get("type") for one in _list(linux.get("namespaces")) if isinstance(one, dict)
    }
    masked = _list(linux.get("maskedPaths"))
    root = _mapping(data.get("root")).get("path")
    return (
        asker(
            _name(annotations, data.get("hostname")),
            annotations,
            _where(annotations, spots),
            here=spots.get(("linux", "namespaces"), TOP),
            subject={"host_network": "network" not in namespaces},
            user_namespace="user" in namespaces,
            masked=[path for path in masked if isinstance(path, str)],
            remounted=remounted(data.get("mounts")),
            owner=_owner(linux),
            root=root if isinstance(root, str) else None,
            means=_means(data, spots),
        ),
    )


def _annotations(data: object, name: str) -> dict[str, str]:
    try:
        return annotations_of(data)
    except HookError:
        raise HookError(
            BAD_STATE, f"{name} isn't a JSON object whose annotations are strings"
        ) from None


def _name(annotations: Mapping[str, str], other: object) -> str:
    name = container_name(annotations)
    return f"container {quote(name or str(other))[1:-1]}" if name or other else "the container"


def _where(annotations: Mapping[str, str], spots: Mapping[Place, Spot]) -> dict[str, Spot]:
    return {
        key: spots[("annotations", key)]
        for key in annotations
        if key.startswith(PREFIX) and ("annotations", key) in spots
    }


def _owner(linux: Mapping[str, Any]) -> tuple[int, int] | None:
    """The uid and gid on the host of the container's root, or None."""
    ids: list[int] = []
    for key in ("uidMappings", "gidMappings"):
        for one in _list(linux.get(key)):
            host = one.get("hostID") if isinstance(one, dict) else None
            if type(host) is int and one.get("containerID") == 0:
                ids.append(host)
                break
    return (ids[0], ids[1]) if len(ids) == 2 else None


def _means(data: Mapping[str, Any], spots: Mapping[Place, Spot]) -> Means | None:
    process = _mapping(data.get("process"))
    if not process:
        return None
    sets = _mapping(process.get("capabilities"))
    variables = [str(one).partition("=") for one in _list(process.get("env"))]
    return means(
        capabilities=_list(sets.get("bounding")),
        spot=spots.get(("process", "capabilities"), spots.get(("process",), TOP)),
        user=_mapping(process.get("user")).get("uid"),
        ambient=_list(sets.get("ambient")),
        environment={key: value for key, equals, value in variables if equals},
        mounts=_volumes(data, spots),
    )


def _volumes(data: Mapping[str, Any], spots: Mapping[Place, Spot]) -> Iterator[Mount]:
    """What is bound into the container; no source is told, since engines bind the host's /sys."""
    for number, one in enumerate(_list(data.get("mounts"))):
        path = one.get("destination") if isinstance(one, dict) else None
        if not isinstance(path, str):
            continue
        options = [str(option) for option in _list(one.get("options"))]
        if one.get("type") == "bind" or {"bind", "rbind"} & {*options}:
            spot = spots.get(("mounts", number, "destination"), TOP)
            yield Mount(path=path, shared=is_shared(options), source=None, spot=spot)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
