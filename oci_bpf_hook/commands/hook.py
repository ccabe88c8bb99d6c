"""`oci-bpf-hook hook`: the hook, by the command's name; its launcher is faster."""

import argparse

from ..policy import ENGINES
from .table import argument

ARGUMENTS = (
    argument("--header", metavar="FILE", help="C header with the names, for want of BTF"),
    argument("--engine", choices=ENGINES, help="which engine runs it"),
    argument(
        *("--profile",),
        metavar="NAME",
        help="what a CDI device gives: this profile of the policy, whatever the annotations ask",
    ),
    argument("--path", metavar="DIR", help="where --profile is mounted; default /sys/fs/bpf"),
)


def run(options: argparse.Namespace) -> int:
    from ..hook import main

    names = ("header", "engine", "profile", "path")
    given = {name: getattr(options, name) for name in names}
    return main([word for name in names if given[name] for word in (f"--{name}", given[name])])
