"""The same container in each format that describes one: what it has, and what it asks for."""

import json
from collections.abc import Callable, Iterable, Mapping

import yaml

Write = Callable[..., str]
# A user namespace, and none of the other things.
_OWN = [{"type": kind} for kind in ("user", "mount", "network")]


def pod(
    annotations: Mapping[str, str],
    *,
    capabilities: Iterable[str] = (),
    dropped: Iterable[str] = (),
    privileged: bool = False,
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
    spec: Mapping[str, object] | None = None,
) -> str:
    """A pod; `volumes` has the host's path for each path, and `spec` what else it says."""
    volumes = volumes or {}
    security: dict[str, object] = {"capabilities": {"add": [*capabilities], "drop": [*dropped]}}
    security |= {"privileged": privileged, **({} if user is None else {"runAsUser": user})}
    container: dict[str, object] = {"name": "c", "image": "i", "securityContext": security}
    container["env"] = [{"name": key, "value": text} for key, text in (environment or {}).items()]
    container["volumeMounts"] = [
        {"name": f"v{number}", "mountPath": path} for number, path in enumerate(volumes)
    ]
    listed = [
        {"name": f"v{number}", "hostPath": {"path": source}}
        for number, source in enumerate(volumes.values())
    ]
    whole = {"hostUsers": False, "containers": [container], "volumes": listed, **(spec or {})}
    data = {"apiVersion": "v1", "kind": "Pod", "spec": whole}
    return yaml.safe_dump({**data, "metadata": {"name": "p", "annotations": dict(annotations)}})


def compose(
    annotations: Mapping[str, str],
    *,
    capabilities: Iterable[str] = (),
    dropped: Iterable[str] = (),
    privileged: bool = False,
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
) -> str:
    """A compose.yaml with one service."""
    service: dict[str, object] = {"image": "i", "userns_mode": "auto", "privileged": privileged}
    service |= {"cap_add": [*capabilities], "cap_drop": [*dropped]}
    service |= {} if user is None else {"user": str(user)}
    service |= {"environment": dict(environment or {}), "annotations": dict(annotations)}
    service["volumes"] = [f"{source}:{path}:ro" for path, source in (volumes or {}).items()]
    return yaml.safe_dump({"services": {"c": service}})


def quadlet(
    annotations: Mapping[str, str],
    *,
    capabilities: Iterable[str] = (),
    dropped: Iterable[str] = (),
    privileged: bool = False,
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
) -> str:
    """A *.container."""
    lines = ["[Container]", "Image=i", "UserNS=auto"]
    lines += [f"AddCapability=CAP_{name}" for name in capabilities]
    lines += [f"DropCapability=CAP_{name}" for name in dropped]
    lines += ["PodmanArgs=--privileged"] if privileged else []
    lines += [] if user is None else [f"User={user}"]
    lines += [f"Environment={key}={text}" for key, text in (environment or {}).items()]
    lines += [f"Annotation={key}={text}" for key, text in annotations.items()]
    lines += [f"Volume={source}:{path}:ro" for path, source in (volumes or {}).items()]
    return "\n".join(lines) + "\n"


def config(
    annotations: Mapping[str, str],
    *,
    capabilities: Iterable[str] = (),
    dropped: Iterable[str] = (),
    privileged: bool = False,
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    volumes: Mapping[str, str] | None = None,
    ambient: Iterable[str] = (),
) -> str:
    """A config.json; what is `privileged` or drops something has its capabilities written out."""
    named = [f"CAP_{name}" for name in capabilities]
    process = {
        "user": {"uid": user or 0},
        "capabilities": {"bounding": named, "ambient": [f"CAP_{name}" for name in ambient]},
        "env": [f"{key}={text}" for key, text in (environment or {}).items()],
    }
    mounts = [
        {"destination": path, "source": source, "type": "bind", "options": ["rbind", "ro"]}
        for path, source in (volumes or {}).items()
    ]
    linux = {"namespaces": _OWN}
    data = {"annotations": dict(annotations), "process": process, "linux": linux}
    return json.dumps({**data, "root": {"path": "rootfs"}, "mounts": mounts}, indent=1)


# Each with the name of a file of its kind.
FORMATS: dict[str, tuple[str, Write]] = {
    "pod": ("pod.yaml", pod),
    "compose": ("compose.yaml", compose),
    "quadlet": ("c.container", quadlet),
    "config": ("config.json", config),
}
