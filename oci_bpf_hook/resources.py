"""What is shipped beside the modules: schemas, hooks, units, man pages, the built-in policy.

In a checkout these are directories of their own, and everywhere else they are in the package.
"""

import json
from pathlib import Path
from typing import Any

from . import paths
from .errors import BAD_POLICY, HookError

# Of all modules, in whatever folder; and what they read is in it too.
PACKAGE = Path(paths.PACKAGE)
BUILTIN_POLICY = PACKAGE / "policy.yaml"
# Directories of a checkout that are in the package when it is installed.
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
