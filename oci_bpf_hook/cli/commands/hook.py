"""`oci-bpf-hook hook` runs the hook, to try it by hand; engines run the faster launcher."""

import argparse

from ...delegation.annotations import PATH
from ...policy.subject import ENGINES
from ..options.table import argument

ABOUT = """
Runs as an OCI runtime hook: reads a container's state on standard input, and mounts the bpffs that
its annotations ask for and the policy allows.

Engines run /usr/libexec/oci-bpf-hook/oci-bpf-hook instead, which does the same and starts faster.
This command is for trying it by hand.
"""
ARGUMENTS = (
    argument(
        "--header", metavar="FILE", help="the C header with the names, for a kernel without BTF"
    ),
    argument("--engine", choices=ENGINES, help="the engine that runs the hook"),
    argument(
        *("--profile",),
        metavar="NAME",
        help="grant this profile of the policy, whatever the annotations ask; for CDI devices",
    ),
    argument(
        *("--path",),
        metavar="DIR",
        help=f"where to mount the bpffs of --profile (default: {PATH})",
    ),
)


def run(options: argparse.Namespace) -> int:
    from ...hook.main import main

    names = ("header", "engine", "profile", "path")
    given = {name: getattr(options, name) for name in names}
    return main([word for name in names if given[name] for word in (f"--{name}", given[name])])
