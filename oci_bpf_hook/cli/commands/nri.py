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
# After the plugins that most people have, so that their mounts are seen first.
_INDEX = "80"
ABOUT = f"""
containerd and CRI-O tell their NRI plugins of each container before it is created. This plugin
delegates BPF to those whose pod has `io.bpffs.*` annotations and `hostUsers: false`. The node needs
no hook, no RuntimeClass and no allowed annotations for that.

It makes the bpffs for the pod's user namespace, and the engine mounts it in the container. It
decides by oci-bpf-hook-policy(5), where `namespace`, `pod`, `container` and `image` are the
engine's own words. A request that is refused, or isn't served in time, fails the creation of the
container, and the reason is in the pod's events.

The plugin runs as root in the initial user namespace, in a container too, if that is in the host's
pid namespace. It connects to {connection.SOCKET}, and connects again when the engine is restarted.
Only one serves a host at a time. An engine that has started it as a plugin has its socket, name and
index in the environment.

While the plugin isn't running, containers that ask are created without a delegation.
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
    # If the policy is wrong that is logged now, and requests are refused until it is corrected.
    policy.get()
    # What exists now never becomes garbage, and a collection would copy its pages in every child.
    gc.collect()
    gc.freeze()
    plugin.run()
    return DONE
