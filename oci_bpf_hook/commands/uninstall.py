"""`oci-bpf-hook uninstall`: take away what `install` has put there."""

import argparse
from contextlib import nullcontext

from .. import install_layout
from ..errors import DONE, MOUNT_FAILED, USAGE, HookError
from ..lsm import release
from .guard import held
from .install import LOCATION, located, take
from .output import JSON
from .table import argument

ABOUT = """
Removes what install has put there: the JSON first and the CDI devices of `cdi generate`, then the
guard, then all else. Where another CDI file has the hook it removes nothing and says so: containers
with a device of that wouldn't start. Nor does it where containers run that the guard holds. The
policy, the audit trail and running containers are left alone; a broker that runs is stopped before
by `systemctl disable --now oci-bpf-hook-broker.socket`.
"""
ARGUMENTS = (
    *LOCATION,
    argument(
        *("--force",),
        action="store_true",
        help="even where containers are held by the guard, which then lets go of them",
    ),
    JSON,
)


def run(options: argparse.Namespace) -> int:
    layout = located(options)
    guarded = install_layout.has_guard(layout)
    with release.nothing_marked(force=options.force) if guarded else nullcontext():
        problems = install_layout.kept(layout.program, layout.top)
        holds = held() if guarded and not options.force else {}
        if problems or holds:
            raise HookError(USAGE if problems else MOUNT_FAILED, *problems, *holds.values())
        take(install_layout.uninstall(layout), options)
    return DONE
