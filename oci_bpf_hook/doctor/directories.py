"""Where podman reads hooks from, and whether it runs ours at its stage precreate."""

import json
import os
import tomllib
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Any

SHARED = "/usr/share/containers/oci/hooks.d"
ETC = "/etc/containers/oci/hooks.d"
# For podman's own stage; engines read this directory only if they are told to.
PRECREATE = "/usr/share/containers/oci/precreate.d"
OURS = "oci-bpf-hook"


def of_podman() -> list[str]:
    """The directories in which podman looks; later ones win."""
    given = os.environ.get("CONTAINERS_CONF")
    files = (
        [given]
        if given
        else [
            "/usr/share/containers/containers.conf",
            "/etc/containers/containers.conf",
            *sorted(glob("/etc/containers/containers.conf.d/*.conf")),
            *([os.path.expanduser("~/.config/containers/containers.conf")] * bool(os.geteuid())),
        ]
    )
    if override := os.environ.get("CONTAINERS_CONF_OVERRIDE"):
        files.append(override)
    return setting(files, ("engine", "hooks_dir")) or [SHARED]


def setting(files: Sequence[str], keys: Sequence[str]) -> list[str] | None:
    """A list of paths in TOML files, by its keys; the last file that has it counts."""
    found: list[str] | None = None
    for name in files:
        try:
            value: Any = tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # It is missing, or the engine itself will complain about it.
            continue
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            found = value
    return found


def is_precreate(config: object) -> bool:
    """Whether this is the decoded JSON of a hook at the stage precreate."""
    stages = config.get("stages") if isinstance(config, dict) else None
    return isinstance(stages, list) and "precreate" in stages


def adds_at_precreate() -> bool:
    """Whether podman on this host runs our hook at precreate, which adds what containers lack."""
    for directory in of_podman():
        for path in sorted(Path(directory).glob("*.json")):
            try:
                config = json.loads(path.read_bytes())
                program = config["hook"]["path"]
            except (OSError, ValueError, RecursionError, KeyError, TypeError):
                continue  # doctor reports these.
            if is_precreate(config) and str(program).rpartition("/")[2] == OURS:
                return os.path.exists(program)
    return False
