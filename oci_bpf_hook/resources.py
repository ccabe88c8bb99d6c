"""Finds what is shipped beside the modules: schemas, hooks, units, man pages, the built-in policy.

In a checkout these are in directories outside the package; once installed they are in it.
"""

import json
from pathlib import Path
from typing import Any

from . import paths
from .errors import BAD_POLICY, HookError

# The directory of the package.
PACKAGE = Path(paths.PACKAGE)
BUILTIN_POLICY = PACKAGE / "policy.yaml"
# Each resource's directory in a checkout; an installed package has a directory of the resource's
# name.
RESOURCES = {
    "hooks": "hooks.d",
    "schema": "schema",
    "man": "contrib/man",
    "completions": "contrib/completions",
    "systemd": "contrib/systemd",
    "podman": "contrib/podman",
    "containerd": "contrib/containerd",
}


def resource(name: str) -> Path:
    """The directory of the resource `name`, one of RESOURCES; it isn't checked that it exists."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / RESOURCES[name]


def schema(name: str) -> dict[str, Any]:
    """The shipped schema `name`, decoded.  Raises HookError (BAD_POLICY) if it is missing."""
    path = resource("schema") / f"{name}.schema.json"
    if not path.exists():
        raise HookError(BAD_POLICY, f"{path.name} is missing from this installation")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
