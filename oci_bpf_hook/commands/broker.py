"""`oci-bpf-hook broker`: the service that delegates BPF for rootless engines."""

import argparse
import gc
import grp
import os

from .. import broker, listening
from ..client import SOCKET
from ..errors import DONE, USAGE, HookError, quote
from ..log import INFO, log
from ..policywatch import Watched
from .table import argument


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError
    return mode


ARGUMENTS = (
    argument(
        *("--socket",),
        metavar="PATH",
        default=SOCKET,
        help=f"where to listen, unless systemd passes a socket ({SOCKET})",
    ),
    argument(
        *("--mode",),
        type=_mode,
        default=0o666,
        metavar="MODE",
        help="octal mode of that socket (0666)",
    ),
    argument("--group", metavar="NAME", help="group of that socket, for --mode 0660"),
    argument(
        *("--idle",),
        type=float,
        metavar="SECONDS",
        help="end when nobody has asked for so long (60 with a socket from systemd, else never)",
    ),
    argument(
        *("--workers",),
        type=int,
        default=16,
        metavar="N",
        help="how many requests to serve at a time (16), at the most half of them of one user",
    ),
    argument(
        *("--rate",),
        type=float,
        default=20,
        metavar="N",
        help="requests a second of one user, ten times as many at once (20; 0 for any number)",
    ),
    argument("--header", metavar="FILE", help="C header with the names, for want of BTF"),
)
_IDLE = 60


def run(options: argparse.Namespace) -> int:
    listening.require_host()
    os.umask(0o077)
    os.chdir("/")
    group = _group(options.group) if options.group else -1
    passed = listening.inherited()
    idle = options.idle if options.idle is not None else _IDLE if passed else 0
    limits = broker.Limits(workers=max(options.workers, 1), rate=max(options.rate, 0), idle=idle)
    sock = passed or listening.listen(options.socket, options.mode, group)
    policy = Watched(header=options.header)
    service = broker.Broker(sock, policy, limits)
    # One that is wrong is said now; requests are refused until it is in order.
    policy.get()
    # What is there now is never garbage, and looking at it would copy it in every child.
    gc.collect()
    gc.freeze()
    log(INFO, "broker: ready")
    listening.notify("READY=1")
    service.run()
    listening.notify("STOPPING=1")
    return DONE


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise HookError(USAGE, f"--group: there is no group {quote(name)}") from None
