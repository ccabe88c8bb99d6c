"""How far what is delegated reaches: to the container's own, or to what it shares with the host.

The kernel looks at no token when a program is attached; a namespace that is shared with the
host is open to whoever holds a program of the type for it.  Facts: kernel/bpf/syscall.c,
link_create and bpf_prog_attach; tried with each type in a shared network namespace.
"""

from .lint import BEYOND, ON_CGROUP, ON_NETWORK
from .names import PROGS
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What a type reaches, from least to most.
OWN = "container"
OF_NETWORK = "network"
OF_CGROUP = "cgroup"
HOST = "host"


class Exposure(Record):
    """A way out of the container: `code`, the types that are it, what they can do, its `fix`."""

    __slots__ = ("code", "fix", "names", "what")
    code: str
    names: tuple[str, ...]
    what: str
    fix: str


def reach(option: str, name: str) -> str:
    """What the type `name` of the `delegate_*` option reaches: OWN, OF_NETWORK, OF_CGROUP, HOST."""
    if name == "struct_ops" or (option == PROGS.option and name in BEYOND):
        return HOST
    if option == PROGS.option and name in ON_NETWORK:
        return OF_NETWORK
    return OF_CGROUP if option == PROGS.option and name in ON_CGROUP else OWN


def exposures(
    programs: "Iterable[str]", *, host_network: bool, host_cgroup: bool
) -> "Iterator[Exposure]":
    """What a container with these program types delegated reaches beyond itself."""
    given = list(programs)
    network = tuple(name for name in given if name in ON_NETWORK)
    if host_network and network:
        yield Exposure(
            code="host-network",
            names=network,
            what="attach to the host's network, which the container or its user shares, and see "
            "and change its traffic",
            fix="podman run --network bridge ...",
        )
    cgroups = tuple(name for name in given if name in ON_CGROUP)
    if host_cgroup and cgroups:
        yield Exposure(
            code="host-cgroup",
            names=cgroups,
            what="attach to cgroups of others, which the container or its user can see",
            fix="podman run --cgroupns private ...",
        )
    host = tuple(name for name in given if name in BEYOND)
    if host:
        yield Exposure(
            code="reaches-beyond",
            names=host,
            what="; ".join(dict.fromkeys(BEYOND[name] for name in host)),
            fix=f"leave {', '.join(host)} out of {PROGS.option}, if nothing in it needs them",
        )
