"""Finds what is shipped beside the modules: schemas, hooks, units, man pages, the built-in policy.

In a checkout these are in directories outside the package; once installed they are in it.
"""

import json
from pathlib import Path
from typing import Any

from . import paths
from .errors import BAD_POLICY, HookError

# The directory of all modules' folders, and of the files that they read.
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
}


def resource(name: str) -> Path:
    """One of the directories beside the modules: in the package, or in its checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / RESOURCES[name]


def schema(name: str) -> dict[str, Any]:
    """One of the shipped schemas.  Raises HookError (BAD_POLICY) if it isn't there."""
    path = resource("schema") / f"{name}.schema.json"
    if not path.exists():
        raise HookError(BAD_POLICY, f"{path.name} is missing from this installation")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
