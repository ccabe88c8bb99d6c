"""How far what is delegated reaches: one table, for everything that says so.

The masks choose types, and not what a program of a type calls: kernel functions that reach all of
the kernel are there for every program type.  So every program type reaches the kernel, unless the
token is confined, which is to say that the guard holds what its programs call.  Even then
the kernel looks at no token when a program is attached; a namespace that is shared with the host is
open to whoever holds a program of the type for it.  Facts: kernel/bpf/syscall.c, link_create and
bpf_prog_attach, tried with each type in a shared network namespace.

A name that isn't in the table is one of a newer kernel's, and reaches the kernel too.
"""

from .names import ATTACHS, MAPS, PROGS
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# What a name reaches, from least to most: what is the container's own, everything in a network
# namespace, every process of a cgroup, the kernel that all share.
OWN = "own"
NETWORK = "network"
CGROUP = "cgroup"
HOST = "host"

# Programs that a confined token loads: those of a process's own sockets; those that act on
# everything in a network namespace, and on every process of a cgroup, which are the
# container's own unless it shares the host's.
ON_SOCKETS = ("socket_filter", "sk_skb", "sk_msg", "sk_reuseport")
ON_NETWORK = (
    "sched_cls",
    "sched_act",
    "xdp",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "lwt_seg6local",
    "flow_dissector",
    "sk_lookup",
    "netfilter",
)
ON_CGROUP = (
    "cgroup_skb",
    "cgroup_sock",
    "sock_ops",
    "cgroup_device",
    "cgroup_sock_addr",
    "cgroup_sysctl",
    "cgroup_sockopt",
)
# Maps hold data, and what they refer to whoever fills them had in hand.  Not struct_ops, whose
# maps register with the kernel, and not insn_array, which has addresses of the kernel.
_OWN_MAPS = frozenset(
    (
        *("unspec", "hash", "array", "prog_array", "perf_event_array", "percpu_hash"),
        *("percpu_array", "stack_trace", "cgroup_array", "lru_hash", "lru_percpu_hash"),
        *("lpm_trie", "array_of_maps", "hash_of_maps", "devmap", "sockmap", "cpumap", "xskmap"),
        *("sockhash", "cgroup_storage", "cgroup_storage_deprecated", "reuseport_sockarray"),
        *("percpu_cgroup_storage", "percpu_cgroup_storage_deprecated", "queue", "stack"),
        *("sk_storage", "devmap_hash", "ringbuf", "inode_storage", "task_storage"),
        *("bloom_filter", "user_ringbuf", "cgrp_storage", "arena", "rhash"),
    )
)
# Of these map_create, prog_load, btf_load and btf_get_fd_by_id ask for a token, and give what
# the types say; for the others delegation does nothing.
_OWN_CMDS = frozenset(
    (
        *("map_create", "map_lookup_elem", "map_update_elem", "map_delete_elem"),
        *("map_get_next_key", "prog_load", "obj_pin", "obj_get", "prog_attach", "prog_detach"),
        *("prog_test_run", "prog_run", "prog_get_next_id", "map_get_next_id"),
        *("prog_get_fd_by_id", "map_get_fd_by_id", "obj_get_info_by_fd", "prog_query"),
        *("raw_tracepoint_open", "btf_load", "btf_get_fd_by_id", "task_fd_query"),
        *("map_lookup_and_delete_elem", "map_freeze", "btf_get_next_id", "map_lookup_batch"),
        *("map_lookup_and_delete_batch", "map_update_batch", "map_delete_batch", "link_create"),
        *("link_update", "link_get_fd_by_id", "link_get_next_id", "enable_stats", "iter_create"),
        *("link_detach", "prog_bind_map", "token_create", "prog_stream_read_by_fd"),
        "prog_assoc_struct_ops",
    )
)
# Why what no confined token is used with, and one command that it isn't given, reach the kernel.
_WHY = {
    "kprobe": "reads kernel memory",
    "tracepoint": "reads kernel memory",
    "raw_tracepoint": "reads kernel memory",
    "raw_tracepoint_writable": "reads kernel memory and writes tracepoints' buffers",
    "perf_event": "reads kernel memory",
    "tracing": "reads kernel memory",
    "lsm": "decides for every process of the host",
    "btf_get_fd_by_id": "opens the BTF of every program of the host",
    "struct_ops": "registers with the kernel for the whole host",
    "insn_array": "shows a program the kernel's addresses of its own code",
    "ext": "replaces functions of other programs",
    "syscall": "runs in the kernel without being attached",
    "lirc_mode2": "attaches to devices of the host",
}

# What is said of programs that nothing confines, and what is to be done.
UNCONFINED = "nothing confines what these programs call, and so they reach the whole kernel"
CONFINE = (
    "turn the guard on (oci-bpf-hook guard on) and have a rule that is confined grant it, unless "
    "the container is trusted with the kernel"
)
# What the three ways out of a container are called, wherever they are reported.
HOST_NETWORK = "host-network"
HOST_CGROUP = "host-cgroup"
REACHES_BEYOND = "reaches-beyond"


def reach(option: str, name: str, *, confined: bool) -> str:
    """What the type `name` of the `delegate_*` option reaches: OWN, NETWORK, CGROUP or HOST.

    `confined` says whether the guard holds the programs; without it each reaches the HOST.
    """
    if option == PROGS.option:
        return _program(name) if confined or name == "unspec" else HOST
    if option == ATTACHS.option:  # It gives nothing without a program type, which is asked about.
        return OWN
    if option == MAPS.option:
        return OWN if name in _OWN_MAPS else HOST
    # It asks for CAP_SYS_ADMIN of the container's, which the guard refuses (bpf_btf_get_fd_by_id).
    return OWN if name in _OWN_CMDS and (confined or name != "btf_get_fd_by_id") else HOST


def _program(name: str) -> str:
    """What a confined program reaches; HOST also where no confined token loads it."""
    if name in ON_NETWORK:
        return NETWORK
    if name in ON_CGROUP:
        return CGROUP
    return OWN if name in ON_SOCKETS or name == "unspec" else HOST


def why(name: str) -> str:
    """Why it reaches the HOST by what it is for, to go after the name."""
    return _WHY.get(name, "isn't known here, and so may reach all of the kernel")


class Exposure(Record):
    """A way out of the container: `code`, the types that are it, what they can do, its `fix`."""

    __slots__ = ("code", "fix", "names", "what")
    code: str
    names: tuple[str, ...]
    what: str
    fix: str


def exposures(
    given: "Mapping[str, Iterable[str]]", *, confined: bool, host_network: bool, host_cgroup: bool
) -> "Iterator[Exposure]":
    """What a container reaches beyond itself that has these names delegated, by their options."""
    programs = [(name, _program(name)) for name in given.get(PROGS.option, ())]
    network = tuple(name for name, far in programs if far == NETWORK)
    if host_network and network:
        yield Exposure(
            code=HOST_NETWORK,
            names=network,
            what="attach to the host's network, which the container or its user shares, and see "
            "and change its traffic",
            fix="podman run --network bridge ...",
        )
    cgroups = tuple(name for name, far in programs if far == CGROUP)
    if host_cgroup and cgroups:
        yield Exposure(
            code=HOST_CGROUP,
            names=cgroups,
            what="attach to cgroups of others, which the container or its user can see",
            fix="podman run --cgroupns private ...",
        )
    yield from _beyond(given, confined=confined)


def _beyond(given: "Mapping[str, Iterable[str]]", *, confined: bool) -> "Iterator[Exposure]":
    host = {
        option: [name for name in names if reach(option, name, confined=confined) == HOST]
        for option, names in given.items()
    }
    every = tuple(dict.fromkeys(name for names in host.values() for name in names))
    if not every:
        return
    # Of programs that nothing confines one thing is said, whatever else they are for.
    loose = [] if confined else host.get(PROGS.option, [])
    said = [UNCONFINED] if loose else []
    said += dict.fromkeys(why(name) for name in every if name not in loose)
    yield Exposure(
        code=REACHES_BEYOND,
        names=every,
        what="; ".join(said),
        fix=_fix(host),
    )


def _fix(host: "Mapping[str, list[str]]") -> str:
    """What to do about what reaches the HOST, some of which no guard would confine."""
    never = {
        option: [name for name in names if reach(option, name, confined=True) == HOST]
        for option, names in host.items()
    }
    left = list(dict.fromkeys(name for names in never.values() for name in names))
    if not left:
        return CONFINE
    options = " and ".join(option for option, names in never.items() if names)
    without = f"leave {', '.join(left)} out of {options}"
    if never == host:
        return f"{without}, if nothing in it needs them"
    return f"{without}, and {CONFINE}"
