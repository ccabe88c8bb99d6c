"""`oci-bpf-hook uninstall` removes what `install` has put in place."""

import argparse
from contextlib import nullcontext

from ...errors import DONE, MOUNT_FAILED, USAGE, HookError
from ...guard.lsm import release
from ...install import layout as install_layout
from ..options.output import JSON
from ..options.table import argument
from .guard import held
from .install import LOCATION, located, take

ABOUT = """
Removes what install put in place: first the JSON that registers the hook, and the CDI devices of
`cdi generate`; then the guard; then everything else. The policy, the audit trail and running
containers are left alone.

If another CDI file uses the hook, uninstall names that file and removes nothing, because containers
with such a device wouldn't start. It also removes nothing while containers run that the guard
confines. Stop a running broker first: `systemctl disable --now oci-bpf-hook-broker.socket`.
"""
ARGUMENTS = (
    *LOCATION,
    argument(
        *("--force",),
        action="store_true",
        help="uninstall even while the guard confines containers, and confine them no longer",
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
