"""The option --hook, and the hook's program and arguments that commands write into files."""

import json
from pathlib import Path
from typing import Any

from ... import resources
from ...errors import USAGE, HookError, Problem
from .table import argument

ARGUMENT = argument(
    *("--hook",), metavar="FILE", help="the hook's program (default: this installation's)"
)


def package(program: str | None) -> str:
    """The directory of the package that the hook of `hook(program)` is installed with, or ours."""
    beside = Path(hook(program)["path"]).parent / "oci_bpf_hook"
    return str(beside if beside.is_dir() else resources.PACKAGE)


def hook(program: str | None) -> dict[str, Any]:
    """The path, args, env and timeout of the hook; without `program` it is this installation's.

    Raises HookError (USAGE).
    """
    loaded = json.loads((resources.resource("hooks") / "oci-bpf-hook.json").read_bytes())
    found: dict[str, Any] = loaded["hook"]
    # An installed launcher is beside the package.  A checkout's launcher shouldn't be named in
    # root's files, so from a checkout the path is the one in the JSON.
    beside = resources.PACKAGE.parent / "oci-bpf-hook"
    found["path"] = program or (str(beside) if beside.is_file() else found["path"])
    if not found["path"].startswith("/"):
        text = f"--hook {found['path']} isn't an absolute path"
        raise HookError(USAGE, Problem(text, key="--hook", item=found["path"]))
    return found
