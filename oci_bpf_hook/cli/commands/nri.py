"""`oci-bpf-hook nri` runs the NRI plugin: it delegates BPF to pods without a hook on the node."""

import argparse
import gc
import os
import socket

from ...errors import DONE, USAGE, HookError, Problem, quote
from ...nri import connection
from ...nri.engine import require_host
from ...nri.plugin import Plugin
from ...policy.store.watch import Watched
from ..options.table import argument

_NAME = "oci-bpf-hook"
# The plugin has its turn after most others, so that it sees the mounts that they add.
_INDEX = "80"
ABOUT = f"""
containerd and CRI-O ask NRI plugins about each container before they create it. This plugin
delegates BPF to containers whose pod has `io.bpffs.*` annotations and `hostUsers: false`. For that
the node needs no hook and no RuntimeClass, and the engine's configuration lists no annotations.

It makes the bpffs for the pod's user namespace, and the engine mounts it in the container. It
decides by oci-bpf-hook-policy(5), where `namespace`, `pod`, `container` and `image` are what the
engine says. If a request is refused, or isn't served in time, the container isn't created, and the
reason is in the pod's events.

The plugin runs as root in the initial user namespace. It may run in a container that shares the
host's pid namespace. It connects to {connection.SOCKET}, and connects again when the engine is
restarted. Only one plugin serves a host at a time. An engine that starts the plugin itself passes
the connection, name and index in the environment.

While the plugin isn't running, or doesn't answer, containers that ask are created without a
delegation.
"""
ARGUMENTS = (
    argument(
        *("--socket",),
        metavar="PATH",
        default=connection.SOCKET,
        help=f"the engine's NRI socket (default: {connection.SOCKET})",
    ),
    argument(
        *("--name",),
        metavar="NAME",
        default=_NAME,
        help=f"the name by which the plugin registers (default: {_NAME})",
    ),
    argument(
        *("--idx",),
        metavar="NN",
        default=_INDEX,
        help=f"the two digits by which the engine orders its plugins (default: {_INDEX})",
    ),
    argument(
        "--header", metavar="FILE", help="the C header with the names, for a kernel without BTF"
    ),
)


def run(options: argparse.Namespace) -> int:
    require_host()
    if not connection.is_index(options.idx):
        text = f"--idx {quote(options.idx)} isn't two digits"
        raise HookError(USAGE, Problem(text, key="--idx", item=options.idx))
    launched = connection.launched()
    os.umask(0o077)
    os.chdir("/")
    policy = Watched(header=options.header, who="NRI plugin")
    if launched:
        fd, name, index = launched
        os.set_inheritable(fd, False)
        plugin = Plugin(name, index, policy, lambda: socket.socket(fileno=fd), again=False)
    else:
        plugin = Plugin(
            options.name, options.idx, policy, lambda: connection.connect(options.socket)
        )
    # An error in the policy is logged now, and requests are refused until it is corrected.
    policy.get()
    # What exists now never becomes garbage, and a collection would copy its pages in every child.
    gc.collect()
    gc.freeze()
    plugin.run()
    return DONE
