"""`oci-bpf-hook inject` adds the hook to a bundle's config.json, or removes it again."""

import argparse
import copy
import json
import os
import stat
from pathlib import Path
from typing import Any

from ... import whole
from ...delegation.annotations import PREFIX
from ...errors import BAD_STATE, DONE, NO_USER_NAMESPACE, USAGE, HookError
from ...formats.delegation import needed
from ...oci import additions
from ...policy.store.cache import in_force
from ..options import hook as hook_options
from ..options import request
from ..options.output import Output
from ..options.table import argument

ABOUT = """
Adds the hook to the config.json of an OCI bundle, for runc, crun and youki without an engine above
them, and with --annotation what the container asks for. Running it again changes only what
differs. --undo removes what it has added, and keeps what others have changed since.

The container must have a user namespace. To use its token it needs CAP_BPF, another capability for
most types of programs, and bpf(2): --capabilities and --seccomp add these to config.json.
"""
ARGUMENTS = (
    argument("bundle", metavar="DIR", help="the bundle's directory"),
    argument(
        *("--annotation",),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"an annotation, such as {PREFIX}profile=xdp; may be repeated",
    ),
    argument(
        "--capabilities",
        action="store_true",
        help="add CAP_BPF and the other capabilities that the request needs",
    ),
    argument("--seccomp", action="store_true", help="allow bpf(2) in config.json's seccomp filter"),
    hook_options.ARGUMENT,
    argument("--undo", action="store_true", help="remove what inject has added"),
)


def run(options: argparse.Namespace) -> int:
    path = Path(options.bundle, "config.json")
    data, status = _read(path)
    text = data.decode("utf-8", "surrogateescape")
    before = _decoded(path, text)
    config = copy.deepcopy(before)
    try:
        additions.undo(config)
        if not options.undo:
            _inject(config, options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HookError(BAD_STATE, f"{path} isn't what a runtime takes: {error}") from None
    if config != before:
        content = _encoded(config, text).encode("utf-8", "surrogateescape")
        mode, whose = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
        whole.write(path, content, mode=mode, owner=whose)
        Output().line(f"write {path}")
    return DONE


def _inject(config: dict[str, Any], options: argparse.Namespace) -> None:
    """Add what the command line asks for.  Raises HookError."""
    if not additions.has_user_namespace(config):
        raise HookError(
            NO_USER_NAMESPACE,
            "the container has no user namespace of its own; BPF tokens exist only in one, and "
            "without one CAP_BPF is the host's; add a namespace of the type user, and mappings, "
            "to its linux section",
        )
    added = additions.Additions(config)
    added.annotations(dict(request.pair(text) for text in options.annotation))
    # What is wrong with the request is reported now and not at the container's start.
    known = in_force().profiles
    asked = request.request(config.get("annotations") or {}, judge=lambda rest: needed(rest, known))
    names = needed(asked, known)
    added.hook(hook_options.hook(options.hook))
    if options.capabilities:
        added.capabilities(names)
    if options.seccomp:
        added.bpf()
    added.token_path(asked.path)
    if asked.shim:
        from ...shim.preload import of_config

        root = Path(options.bundle, config["root"]["path"])
        added.shim(of_config(config, str(root), hook_options.package(options.hook)))
    added.note()


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """The content and the status of the file at `path`.  Raises HookError (USAGE)."""
    try:
        # Without O_NONBLOCK a FIFO at the path would make us wait.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise HookError(USAGE, f"{path} isn't a regular file")
            return request.whole_of(file, str(path)), status
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None


def _decoded(path: Path, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HookError(BAD_STATE, f"{path}: this isn't JSON: {error}") from None
    if not isinstance(config, dict):
        raise HookError(BAD_STATE, f"{path}: this isn't a JSON object")
    return config


def _encoded(config: dict[str, Any], text: str) -> str:
    """`config` as JSON with the indentation of `text`; runc's files are indented by tabs."""
    second = text.split("\n")[1] if "\n" in text.strip() else ""
    indent = second[: len(second) - len(second.lstrip())]
    return json.dumps(config, indent=indent or None, ensure_ascii=False) + "\n" * text.endswith(
        "\n"
    )
