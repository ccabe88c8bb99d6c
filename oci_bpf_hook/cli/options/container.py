"""The options --container and --pid, which name the running container that a command is about."""

import argparse

from ...errors import USAGE, HookError, Problem
from ...running import containers
from ...running.containers import Running
from .table import argument

CONTAINER = argument(
    *("--container",),
    metavar="NAME",
    help="the running container with this name or id",
    exclusive="container",
)
PID = argument(
    *("--pid",),
    type=int,
    metavar="PID",
    help="the container of this process, whatever made it, such as LXC, nspawn or unshare",
    exclusive="container",
)
ARGUMENTS = (
    argument(
        *CONTAINER.names, exclusive=CONTAINER.exclusive, one_of_them=True, **CONTAINER.settings
    ),
    PID,
)


def running(options: argparse.Namespace) -> Running:
    """The container that the command line names.  Raises HookError."""
    if options.pid is not None:
        if not 0 < options.pid < 1 << 31:
            text = f"--pid {options.pid} isn't a process id"
            raise HookError(USAGE, Problem(text, key="--pid", item=str(options.pid)))
        return containers.of_process(options.pid)
    return containers.find(options.container)
