"""The hook as configuration names it: its program, and how it is run."""

import json
from typing import Any

from ... import resources
from ...errors import USAGE, HookError, Problem
from .table import argument

ARGUMENT = argument(
    *("--hook",), metavar="FILE", help="the hook's program (default: this installation's)"
)


def hook(program: str | None) -> dict[str, Any]:
    """The path, args, env and timeout of the hook, whose `program` is this installation's if None.

    Raises HookError (USAGE).
    """
    loaded = json.loads((resources.resource("hooks") / "oci-bpf-hook.json").read_bytes())
    found: dict[str, Any] = loaded["hook"]
    # Installed, the launcher is beside the package; a checkout's is nothing to put into files of
    # root's, and there it is the JSON's.
    beside = resources.PACKAGE.parent / "oci-bpf-hook"
    found["path"] = program or (str(beside) if beside.is_file() else found["path"])
    if not found["path"].startswith("/"):
        text = f"--hook {found['path']} is no absolute path"
        raise HookError(USAGE, Problem(text, key="--hook", item=found["path"]))
    return found
