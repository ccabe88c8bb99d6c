"""The facts about each command, map type, program type and attach type, in one table.

For each type it says which capabilities it needs beside CAP_BPF, whether libbpf loads it with
attach type 0, and how far it reaches.  `lint`, `advise`, `exposures`, the policy and the guard all
take these facts from here.
"""

# Masks choose types, but not what a program of a type calls, and programs of every type can call
# kernel functions that reach all of the kernel.  So every program type reaches the kernel, unless
# the token is confined: then the guard limits what its programs call.  But the kernel checks no
# token when a program is attached, so whoever holds a program can attach it to a namespace that
# is shared with the host.  Sources: link_create and bpf_prog_attach in Linux's
# kernel/bpf/syscall.c, tried with each type in a shared network namespace; Linux's
# kernel/bpf/token.c; features.c and libbpf.c of libbpf 1.4 to 1.7.
#
# A name that isn't in these tables belongs to a newer kernel, and counts as reaching the kernel.

from .names import ATTACHS, CMDS, MAPS, PROGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .names import Enum

# What a name reaches, from least to most: only what is the container's own, everything in a network
# namespace, every process of a cgroup, or the kernel that all share.  The network namespace and the
# cgroup are the container's own unless it shares the host's.
OWN = "own"
NETWORK = "network"
CGROUP = "cgroup"
HOST = "host"

# The capabilities in the container's user namespace that a type may need beside CAP_BPF (Linux:
# is_net_admin_prog_type, is_perfmon_prog_type, map_create).
NET_ADMIN = "NET_ADMIN"
PERFMON = "PERFMON"

# Whether libbpf loads a program with expected_attach_type 0, which is cgroup_inet_ingress and has
# to be delegated like any other attach type.  ALWAYS: it does.  MAYBE: it does, instead of the
# declared type, if the probe program of that feature, a cgroup_sock program, is refused
# (FEAT_EXP_ATTACH_TYPE).  NEVER: it doesn't.
ALWAYS = "always"
MAYBE = "maybe"
NEVER = "never"

# For each program type: what a confined token's program reaches, or HOST if no confined token can
# load the type; the capabilities that loading it takes; and whether libbpf loads it with attach
# type 0.  The types are in the enum's order, which is ABI: the first has the number 0.
PROGRAMS: "dict[str, tuple[str, tuple[str, ...], str]]" = {
    # The kernel has no operations for this type, so no program is of it.
    "unspec": (OWN, (), NEVER),
    "socket_filter": (OWN, (), ALWAYS),
    "kprobe": (HOST, (PERFMON,), ALWAYS),
    "sched_cls": (NETWORK, (NET_ADMIN,), ALWAYS),
    "sched_act": (NETWORK, (NET_ADMIN,), ALWAYS),
    "tracepoint": (HOST, (PERFMON,), ALWAYS),
    "xdp": (NETWORK, (NET_ADMIN,), MAYBE),
    "perf_event": (HOST, (PERFMON,), ALWAYS),
    "cgroup_skb": (CGROUP, (), ALWAYS),
    "cgroup_sock": (CGROUP, (NET_ADMIN,), MAYBE),
    "lwt_in": (NETWORK, (NET_ADMIN,), ALWAYS),
    "lwt_out": (NETWORK, (NET_ADMIN,), ALWAYS),
    "lwt_xmit": (NETWORK, (NET_ADMIN,), ALWAYS),
    "sock_ops": (CGROUP, (NET_ADMIN,), MAYBE),
    "sk_skb": (OWN, (NET_ADMIN,), MAYBE),
    "cgroup_device": (CGROUP, (NET_ADMIN,), MAYBE),
    "sk_msg": (OWN, (NET_ADMIN,), MAYBE),
    "raw_tracepoint": (HOST, (PERFMON,), ALWAYS),
    "cgroup_sock_addr": (CGROUP, (NET_ADMIN,), NEVER),
    "lwt_seg6local": (NETWORK, (NET_ADMIN,), ALWAYS),
    "lirc_mode2": (HOST, (), MAYBE),
    "sk_reuseport": (OWN, (), NEVER),
    "flow_dissector": (NETWORK, (NET_ADMIN,), MAYBE),
    "cgroup_sysctl": (CGROUP, (NET_ADMIN,), NEVER),
    "raw_tracepoint_writable": (HOST, (PERFMON,), ALWAYS),
    "cgroup_sockopt": (CGROUP, (NET_ADMIN,), NEVER),
    "tracing": (HOST, (PERFMON,), NEVER),
    "struct_ops": (HOST, (PERFMON,), NEVER),
    "ext": (HOST, (NET_ADMIN, PERFMON), ALWAYS),
    "lsm": (HOST, (PERFMON,), NEVER),
    "sk_lookup": (NETWORK, (), NEVER),
    "syscall": (HOST, (), ALWAYS),
    "netfilter": (NETWORK, (NET_ADMIN,), NEVER),
}
# The row for a name that isn't in the table.
_UNKNOWN: "tuple[str, tuple[str, ...], str]" = (HOST, (), NEVER)

# The maps that reach only the container itself: they hold data, or refer to objects that whoever
# fills them has already.  struct_ops isn't among them, since its maps register with the kernel, nor
# insn_array, which shows addresses of the kernel.
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
# The commands that reach only the container itself.  Of these map_create, prog_load, btf_load and
# btf_get_fd_by_id check a token, and what they make reaches as far as its type; delegating the
# others has no effect.
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
# Why these names reach the kernel: the types that a confined token is never given, and one command.
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

# The types whose programs are attached by perf_event_open(2); `attaching` says more about that.
BY_PERF_EVENT = ("kprobe", "tracepoint", "perf_event")

# Map types that the kernel makes only with BTF for their values.
MAPS_WITH_BTF = ("sk_storage", "struct_ops", "inode_storage", "task_storage", "cgrp_storage")

# The commands for which the kernel checks a token, and the first release that does.
TOKEN_SINCE = {
    "map_create": (6, 9),
    "prog_load": (6, 9),
    "btf_load": (6, 9),
    "btf_get_fd_by_id": (6, 15),
}
WITH_TOKEN = tuple(TOKEN_SINCE)

# The words for programs that nothing confines, and for what to do about them.
UNCONFINED = "nothing confines what these programs call, and so they reach the whole kernel"
CONFINE = (
    "turn the guard on (oci-bpf-hook guard on) and let a confined rule grant it, unless the "
    "container is trusted with the kernel"
)
# The codes of the three ways out of a container, wherever they are reported.
HOST_NETWORK = "host-network"
HOST_CGROUP = "host-cgroup"
REACHES_BEYOND = "reaches-beyond"


def reach(option: str, name: str, *, confined: bool) -> str:
    """What `name`, delegated by the `delegate_*` option, reaches: OWN, NETWORK, CGROUP or HOST.

    `confined` says whether the guard confines the programs; if not, every type reaches the HOST.
    """
    if option == PROGS.option:
        return program_reach(name) if confined or name == "unspec" else HOST
    if option == ATTACHS.option:  # An attach type gives nothing without a program type.
        return OWN
    if option == MAPS.option:
        return OWN if name in _OWN_MAPS else HOST
    # bpf_btf_get_fd_by_id checks CAP_SYS_ADMIN of the container's, which the guard refuses.
    return OWN if name in _OWN_CMDS and (confined or name != "btf_get_fd_by_id") else HOST


def program_reach(name: str) -> str:
    """What a program of this type reaches with a confined token; HOST if none can load the type."""
    return PROGRAMS.get(name, _UNKNOWN)[0]


def attach_type_0(name: str) -> str:
    """Whether libbpf loads a program of this type with attach type 0: ALWAYS, MAYBE or NEVER."""
    return PROGRAMS.get(name, _UNKNOWN)[2]


def why(name: str) -> str:
    """Why the type `name` reaches the HOST, as words that go after the name."""
    return _WHY.get(name, "isn't known here, and so may reach all of the kernel")


def beyond_confined(masks: "Mapping[str, int]", enums: "Mapping[str, Enum]") -> dict[str, int]:
    """The bits of `masks` that a confined token is never given, by their options.

    Of program types these include every bit without a name.
    """
    found = {}
    for option in (CMDS.option, MAPS.option, PROGS.option):
        known = beyond = 0
        for value, name in enums[option].names.items():
            known |= 1 << value
            if reach(option, name, confined=True) == HOST:
                beyond |= 1 << value
        if option == PROGS.option:
            beyond |= ~known
        if mask := masks.get(option, 0) & beyond:
            found[option] = mask
    return found
