"""`oci-bpf-hook convert` translates a delegation into another program's configuration."""

import argparse
import sys
from collections.abc import Mapping

from ...delegation.annotations import Request, parse
from ...delegation.lint import lint
from ...delegation.problems import joined
from ...errors import DONE, USAGE, HookError, quote
from ...formats import convert_from, convert_to, delegation
from ...formats.means import lacks, taking
from ...policy.store import cache
from ..options import request
from ..options.beside import Directory
from ..options.output import JSON, print_json
from ..options.table import argument

ABOUT = """
Reads a delegation in one format and prints it in another, for example from another program's
configuration to annotations for this hook, or the other way round. Notes on standard error say what
has no equivalent in the other format, what else the source says that isn't converted, and what is
doubtful about the delegation itself.

The format podman is any number of command lines of `podman run` or `podman create`, as a shell
reads them; those of docker are understood, too.
"""
_READERS = {
    "annotations": convert_from.annotations,
    "incus": convert_from.incus,
    "kubernetes": convert_from.manifests,
    "lxd": convert_from.lxd,
    "podman": convert_from.podman_command,
    "quadlet": convert_from.quadlet,
    "systemd": convert_from.systemd,
}
# The formats in which the result has the capabilities that it needs, whatever the source has.
_ADDING = ("kubernetes", "podman", "quadlet")
_WRITERS = {
    "annotations": convert_to.annotations,
    "incus": convert_to.incus,
    "kubernetes": convert_to.kubernetes,
    "lxd": convert_to.lxd,
    "podman": convert_to.podman,
    "quadlet": convert_to.quadlet,
    "systemd": convert_to.systemd,
}
ARGUMENTS = (
    argument(
        "--from", dest="source", required=True, choices=sorted(_READERS), help="the format of FILE"
    ),
    argument(
        "--to", dest="target", required=True, choices=sorted(_WRITERS), help="the format to print"
    ),
    JSON,
    argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="the file to read (default: -, which is stdin)",
    ),
)


def run(options: argparse.Namespace) -> int:
    name = "standard input" if options.file == "-" else options.file
    data = request.read(options.file)
    results = [
        result
        for one in _read(options, data, name)
        if (result := _convert(one, options.target)) is not None
    ]
    if not results:
        raise HookError(USAGE, f"{name} delegates nothing")
    if options.json:
        print_json(
            [{"name": one, "text": done.text, "notes": list(done.notes)} for one, done in results]
        )
        return DONE
    for one, done in results:
        print(done.text, end="")
        for note in done.notes:
            print(f"note: {one}: {note}", file=sys.stderr)
    return DONE


def _read(options: argparse.Namespace, data: bytes, name: str) -> list[convert_from.Found]:
    """What is in the file.  Raises HookError."""
    if options.file != "-" and options.source in ("kubernetes", "quadlet"):
        read = convert_from.quadlet if options.source == "quadlet" else convert_from.manifests
        return read(data, name, Directory(options.file))
    return _READERS[options.source](data, name)


def _convert(one: convert_from.Found, target: str) -> tuple[str, delegation.Written] | None:
    """One container's name and its delegation in the format `target`; None if it has none."""
    try:
        asked = parse(one.annotations, lambda: one.label)
    except HookError as error:
        raise joined(error, _masks) from None
    if asked is None:
        return None
    masks, profiles = _masks(asked)
    given = delegation.Delegation(name=one.name, image=one.image, request=asked)
    done = _WRITERS[target](given, profiles)
    doubts = (
        f"{finding.code}: {finding}" for finding in lint(masks, delegation.enums(), confined=True)
    )
    types = taking(masks, delegation.enums())
    found = lacks(one.means, None, types) if one.means else ()
    lacking = [
        f"{lack.reason}; the result adds it"
        if target in _ADDING and lack.code.startswith("cap-")
        else str(lack)
        for lack in found
    ]
    more = [name for name in one.capabilities if name not in delegation.needed(asked, profiles)]
    added = [f"--cap-add {quote(','.join(more))[1:-1]}: not needed for the delegation"] * bool(more)
    notes = tuple(dict.fromkeys((*one.notes, *lacking, *added, *done.notes, *doubts)))
    return one.name, delegation.Written(text=done.text, notes=notes)


def _masks(asked: Request) -> tuple[dict[str, int], Mapping[str, Mapping[str, int]]]:
    """The masks that are asked for, and the policy's profiles if any is asked for.

    Raises HookError.
    """
    profiles = cache.in_force().profiles if asked.profiles else {}
    return delegation.masks(asked, profiles), profiles
