"""`oci-bpf-hook seccomp` prints the engine's seccomp profile, with bpf(2) for CAP_BPF."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import whole
from ...errors import DONE, USAGE, HookError, quote
from ...kernel.syscall_names import unknown
from ...oci.seccomp import BASES, allow_bpf
from ...oci.seccomp_profile import check, names_in
from ...text.strict_json import load_json
from ..options import request
from ..options.output import Output, print_json
from ..options.table import argument

ABOUT = f"""
Prints the default seccomp profile of an engine with one change: a container with CAP_BPF may call
bpf(2), as one with CAP_SYS_ADMIN may already.

The file that --base names has to be a profile from which engines make a container's filter, and a
container has to be able to start with it. It may name system calls that this host's libseccomp
doesn't know; a note on standard error says which.

podman's own profile allows that since containers-common 0.60. The one in Debian 12 doesn't, and
bpf(2) then fails with EPERM, as it does for a bit that wasn't delegated.

Use it with `podman run --security-opt seccomp=FILE`, or as seccomp_profile in containers.conf(5).
As {BASES[0]} it is the default of podman and CRI-O for every container.
"""
# Every user's engine has to be able to read the profile.
_MODE = 0o644
# How many of the names that nobody knows are shown.
_SHOWN = 5
ARGUMENTS = (
    argument(
        *("--base",),
        metavar="FILE",
        help=f"the profile to change (default: {BASES[0]}, otherwise {BASES[1]})",
    ),
    argument(
        *("--output",),
        metavar="FILE",
        help="write to FILE instead of standard output (a shell's > would empty FILE before it is "
        "read)",
    ),
)


def run(options: argparse.Namespace) -> int:
    base = options.base or next((path for path in BASES if Path(path).exists()), None)
    if base is None:
        raise HookError(
            USAGE,
            f"neither {' nor '.join(BASES)} exists; give the engine's profile with --base FILE",
        )
    try:
        profile = allow_bpf(check(load_json(request.read(base))))
    except ValueError as error:
        raise HookError(USAGE, f"{base} isn't a seccomp profile: {error}") from None
    if note := _unknown_names(profile):
        print(f"note: {base}: {note}", file=sys.stderr)
    if options.output is None:
        print_json(profile)
        return DONE
    path, content = Path(options.output), f"{json.dumps(profile, indent=4)}\n".encode()
    if not whole.is_written(path, content, _MODE):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, content, mode=_MODE, devices=True)
        Output().line(f"write {path} ({_MODE:04o})")
    return DONE


def _unknown_names(profile: Mapping[str, Any]) -> str:
    """The note about names that runtimes will skip, or ""."""
    names = unknown(names_in(profile))
    if names is None:
        return "the names of system calls weren't checked, because libseccomp isn't installed"
    if not names:
        return ""
    first = ", ".join(map(quote, names[:_SHOWN]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"this host's libseccomp knows no system call {first}{more}; a runtime with the same "
        "release of it skips these names"
    )
