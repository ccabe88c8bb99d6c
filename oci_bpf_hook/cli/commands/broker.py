"""`oci-bpf-hook broker` runs the service that delegates BPF for rootless engines."""

import argparse
import gc
import grp
import os

from ...broker import listening
from ...broker import service as broker
from ...errors import DONE, USAGE, HookError, Problem, quote
from ...paths import SOCKET
from ...policy.store.watch import Watched
from ...syslog import INFO, log
from ..options.table import argument


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError
    return mode


ABOUT = f"""
Delegating BPF needs CAP_SYS_ADMIN in the initial user namespace. A rootless user's hook doesn't
have it, and neither does a hook at the stage createContainer. Such a hook asks this service.

The broker listens at {SOCKET}. It decides by oci-bpf-hook-policy(5),
has the mount made in the namespaces of whoever asks, and sends the mount back unattached. The hook
attaches it and reads it back.

The broker runs as root in the initial user namespace. Usually systemd starts it when the first hook
asks: `systemctl enable --now oci-bpf-hook-broker.socket`. By hand it is started without options.

It reads the policy again when the policy's file changes. While there is an error in the policy it
refuses every request, and only the host's log says what is wrong.
"""
ARGUMENTS = (
    argument(
        *("--socket",),
        metavar="PATH",
        default=SOCKET,
        help=f"the socket to listen on, unless systemd passes one (default: {SOCKET})",
    ),
    argument(
        *("--mode",),
        type=_mode,
        default=0o666,
        metavar="MODE",
        help="the octal mode of that socket (default: 0666)",
    ),
    argument("--group", metavar="NAME", help="the group of that socket, for --mode 0660"),
    argument(
        *("--idle",),
        type=float,
        metavar="SECONDS",
        help="exit after this time without a request (default: 60 with a socket from systemd, "
        "otherwise never)",
    ),
    argument(
        *("--workers",),
        type=int,
        default=16,
        metavar="N",
        help="serve at most N requests at a time, and half as many of one user (default: 16)",
    ),
    argument(
        *("--rate",),
        type=float,
        default=20,
        metavar="N",
        help="allow each user N requests a second, and ten times as many at once (default: 20; 0 "
        "for any number)",
    ),
    argument(
        "--header", metavar="FILE", help="the C header with the names, for a kernel without BTF"
    ),
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
    # If the policy is wrong that is logged now, and requests are refused until it is corrected.
    policy.get()
    # What exists now never becomes garbage, and a collection would copy its pages in every child.
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
        text = f"--group: there is no group {quote(name)}"
        raise HookError(USAGE, Problem(text, key="--group", item=name)) from None
