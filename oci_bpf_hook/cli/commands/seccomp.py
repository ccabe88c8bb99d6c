"""`oci-bpf-hook seccomp` prints the engine's seccomp profile, with bpf(2) for CAP_BPF."""

import argparse
import json
from pathlib import Path

from ... import whole
from ...errors import DONE, USAGE, HookError
from ...oci.seccomp import BASES, allow_bpf
from ...text.strict_json import load_json
from ..options import request
from ..options.output import Output, print_json
from ..options.table import argument

ABOUT = f"""
Prints the default seccomp profile of an engine with one change: a container with CAP_BPF may call
bpf(2), as one with CAP_SYS_ADMIN may already.

podman's own profile allows that since containers-common 0.60. The one in Debian 12 doesn't, and
bpf(2) then fails with EPERM, as it does for a bit that wasn't delegated.

Use it with `podman run --security-opt seccomp=FILE`, or as seccomp_profile in containers.conf(5).
As {BASES[0]} it is the default of podman and CRI-O for every container.
"""
# Every user's engine has to be able to read the profile.
_MODE = 0o644
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
        profile = allow_bpf(_mapping(load_json(request.read(base))))
    except ValueError as error:
        raise HookError(USAGE, f"{base} isn't a seccomp profile: {error}") from None
    if options.output is None:
        print_json(profile)
        return DONE
    path, content = Path(options.output), f"{json.dumps(profile, indent=4)}\n".encode()
    if not whole.is_written(path, content, _MODE):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, content, mode=_MODE, devices=True)
        Output().line(f"write {path} ({_MODE:04o})")
    return DONE


def _mapping(data: object) -> dict[str, object]:
    if not isinstance(data, dict):
        raise ValueError("it isn't a JSON object")
    return data
