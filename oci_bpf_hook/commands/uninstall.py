"""`oci-bpf-hook uninstall`: take away what `install` has put there."""

import argparse

from .. import installation
from ..errors import DONE, USAGE, HookError
from .install import LOCATION, located, take
from .output import JSON

ABOUT = """
Removes what install has put there: the JSON first and the CDI devices of `cdi generate`, then all
else. Where another CDI file has the hook it removes nothing and says so: containers with a device
of that wouldn't start. The policy, the audit trail and running containers are left alone; a broker
that runs is stopped before by `systemctl disable --now oci-bpf-hook-broker.socket`.
"""
ARGUMENTS = (*LOCATION, JSON)


def run(options: argparse.Namespace) -> int:
    layout = located(options)
    problems = installation.kept(layout.program, layout.top)
    if problems:
        raise HookError(USAGE, *problems)
    take(installation.uninstall(layout), options)
    return DONE
