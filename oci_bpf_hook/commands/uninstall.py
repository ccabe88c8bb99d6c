"""`oci-bpf-hook uninstall`: take away what `install` has put there."""

import argparse

from .. import installation
from ..errors import DONE
from .install import LOCATION, located, take
from .output import JSON

ABOUT = """
Removes what install has put there: the JSON first, then all else. The policy, the audit trail and
running containers are left alone; a broker that runs is stopped before by `systemctl disable --now
oci-bpf-hook-broker.socket`.
"""
ARGUMENTS = (*LOCATION, JSON)


def run(options: argparse.Namespace) -> int:
    take(installation.uninstall(located(options)), options)
    return DONE
