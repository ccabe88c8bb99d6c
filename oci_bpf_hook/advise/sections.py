"""The names of sections, and what each loader makes of a program in such a section.

Data: libbpf, src/libbpf.c, section_defs, after 1.7, from which cilium/ebpf generates its own table;
and aya's table.  A section's name is a default that an application can change before it loads.
"""

from functools import lru_cache
from typing import NamedTuple

# The enum's value 0, which programs without an attach type have.
ZERO = "cgroup_inet_ingress"

LIBBPF = "libbpf"
CILIUM = "cilium"
AYA = "aya"
LOADERS = (LIBBPF, CILIUM, AYA)

# The loader first probes whether the kernel takes attach types, and leaves this one out if not.
OPTIONAL = "optional"
# Its attach type becomes trace_uprobe_multi if the kernel has that.
USDT = "usdt"
# It attaches to a function of the kernel or of another program, which its name or the application
# tells.
BTF = "btf"


class Row(NamedTuple):
    """`pattern` is a whole name; one that ends in `+` also fits with `/` and anything after it.

    `attach` is None if only the kernel's BTF says what it is, as for struct_ops.
    """

    pattern: str
    prog: str
    attach: str | None
    flag: str = ""


_LIBBPF = (
    Row("socket", "socket_filter", ZERO),
    Row("sk_reuseport/migrate", "sk_reuseport", "sk_reuseport_select_or_migrate"),
    Row("sk_reuseport", "sk_reuseport", "sk_reuseport_select"),
    Row("kprobe+", "kprobe", ZERO),
    Row("uprobe+", "kprobe", ZERO),
    Row("uprobe.s+", "kprobe", ZERO),
    Row("kretprobe+", "kprobe", ZERO),
    Row("uretprobe+", "kprobe", ZERO),
    Row("uretprobe.s+", "kprobe", ZERO),
    Row("kprobe.multi+", "kprobe", "trace_kprobe_multi"),
    Row("kretprobe.multi+", "kprobe", "trace_kprobe_multi"),
    Row("kprobe.session+", "kprobe", "trace_kprobe_session"),
    Row("uprobe.multi+", "kprobe", "trace_uprobe_multi"),
    Row("uretprobe.multi+", "kprobe", "trace_uprobe_multi"),
    Row("uprobe.session+", "kprobe", "trace_uprobe_session"),
    Row("uprobe.multi.s+", "kprobe", "trace_uprobe_multi"),
    Row("uretprobe.multi.s+", "kprobe", "trace_uprobe_multi"),
    Row("uprobe.session.s+", "kprobe", "trace_uprobe_session"),
    Row("ksyscall+", "kprobe", ZERO),
    Row("kretsyscall+", "kprobe", ZERO),
    Row("usdt+", "kprobe", ZERO, USDT),
    Row("usdt.s+", "kprobe", ZERO, USDT),
    Row("tc/ingress", "sched_cls", "tcx_ingress"),
    Row("tc/egress", "sched_cls", "tcx_egress"),
    Row("tcx/ingress", "sched_cls", "tcx_ingress"),
    Row("tcx/egress", "sched_cls", "tcx_egress"),
    Row("tc", "sched_cls", ZERO),
    Row("classifier", "sched_cls", ZERO),
    Row("action", "sched_act", ZERO),
    Row("netkit/primary", "sched_cls", "netkit_primary"),
    Row("netkit/peer", "sched_cls", "netkit_peer"),
    Row("tracepoint+", "tracepoint", ZERO),
    Row("tp+", "tracepoint", ZERO),
    Row("tracepoint.s+", "tracepoint", ZERO),
    Row("tp.s+", "tracepoint", ZERO),
    Row("raw_tracepoint+", "raw_tracepoint", ZERO),
    Row("raw_tp+", "raw_tracepoint", ZERO),
    Row("raw_tracepoint.s+", "raw_tracepoint", ZERO),
    Row("raw_tp.s+", "raw_tracepoint", ZERO),
    Row("raw_tracepoint.w+", "raw_tracepoint_writable", ZERO),
    Row("raw_tp.w+", "raw_tracepoint_writable", ZERO),
    Row("tp_btf+", "tracing", "trace_raw_tp", BTF),
    Row("tp_btf.s+", "tracing", "trace_raw_tp", BTF),
    Row("fentry+", "tracing", "trace_fentry", BTF),
    Row("fmod_ret+", "tracing", "modify_return", BTF),
    Row("fexit+", "tracing", "trace_fexit", BTF),
    Row("fentry.s+", "tracing", "trace_fentry", BTF),
    Row("fmod_ret.s+", "tracing", "modify_return", BTF),
    Row("fexit.s+", "tracing", "trace_fexit", BTF),
    Row("fsession+", "tracing", "trace_fsession", BTF),
    Row("fsession.s+", "tracing", "trace_fsession", BTF),
    Row("fsession.multi+", "tracing", "trace_fsession_multi"),
    Row("fsession.multi.s+", "tracing", "trace_fsession_multi"),
    Row("fentry.multi+", "tracing", "trace_fentry_multi"),
    Row("fexit.multi+", "tracing", "trace_fexit_multi"),
    Row("fentry.multi.s+", "tracing", "trace_fentry_multi"),
    Row("fexit.multi.s+", "tracing", "trace_fexit_multi"),
    Row("freplace+", "ext", ZERO, BTF),
    Row("lsm+", "lsm", "lsm_mac", BTF),
    Row("lsm.s+", "lsm", "lsm_mac", BTF),
    Row("lsm_cgroup+", "lsm", "lsm_cgroup", BTF),
    Row("iter+", "tracing", "trace_iter", BTF),
    Row("iter.s+", "tracing", "trace_iter", BTF),
    Row("syscall", "syscall", ZERO),
    Row("xdp.frags/devmap", "xdp", "xdp_devmap"),
    Row("xdp/devmap", "xdp", "xdp_devmap"),
    Row("xdp.frags/cpumap", "xdp", "xdp_cpumap"),
    Row("xdp/cpumap", "xdp", "xdp_cpumap"),
    Row("xdp.frags", "xdp", "xdp"),
    Row("xdp", "xdp", "xdp", OPTIONAL),
    Row("perf_event", "perf_event", ZERO),
    Row("lwt_in", "lwt_in", ZERO),
    Row("lwt_out", "lwt_out", ZERO),
    Row("lwt_xmit", "lwt_xmit", ZERO),
    Row("lwt_seg6local", "lwt_seg6local", ZERO),
    Row("sockops", "sock_ops", "cgroup_sock_ops", OPTIONAL),
    Row("sk_skb/stream_parser", "sk_skb", "sk_skb_stream_parser", OPTIONAL),
    Row("sk_skb/stream_verdict", "sk_skb", "sk_skb_stream_verdict", OPTIONAL),
    Row("sk_skb/verdict", "sk_skb", "sk_skb_verdict", OPTIONAL),
    Row("sk_skb", "sk_skb", ZERO),
    Row("sk_msg", "sk_msg", "sk_msg_verdict", OPTIONAL),
    Row("lirc_mode2", "lirc_mode2", "lirc_mode2", OPTIONAL),
    Row("flow_dissector", "flow_dissector", "flow_dissector", OPTIONAL),
    Row("cgroup_skb/ingress", "cgroup_skb", ZERO, OPTIONAL),
    Row("cgroup_skb/egress", "cgroup_skb", "cgroup_inet_egress", OPTIONAL),
    Row("cgroup/skb", "cgroup_skb", ZERO),
    Row("cgroup/sock_create", "cgroup_sock", "cgroup_inet_sock_create"),
    Row("cgroup/sock_release", "cgroup_sock", "cgroup_inet_sock_release"),
    # Optional as well, but the kernel turns 0 into this one (Linux: kernel/bpf/syscall.c,
    # bpf_prog_load_fixup_attach_type).
    Row("cgroup/sock", "cgroup_sock", "cgroup_inet_sock_create"),
    Row("cgroup/post_bind4", "cgroup_sock", "cgroup_inet4_post_bind"),
    Row("cgroup/post_bind6", "cgroup_sock", "cgroup_inet6_post_bind"),
    Row("cgroup/bind4", "cgroup_sock_addr", "cgroup_inet4_bind"),
    Row("cgroup/bind6", "cgroup_sock_addr", "cgroup_inet6_bind"),
    Row("cgroup/connect4", "cgroup_sock_addr", "cgroup_inet4_connect"),
    Row("cgroup/connect6", "cgroup_sock_addr", "cgroup_inet6_connect"),
    Row("cgroup/connect_unix", "cgroup_sock_addr", "cgroup_unix_connect"),
    Row("cgroup/sendmsg4", "cgroup_sock_addr", "cgroup_udp4_sendmsg"),
    Row("cgroup/sendmsg6", "cgroup_sock_addr", "cgroup_udp6_sendmsg"),
    Row("cgroup/sendmsg_unix", "cgroup_sock_addr", "cgroup_unix_sendmsg"),
    Row("cgroup/recvmsg4", "cgroup_sock_addr", "cgroup_udp4_recvmsg"),
    Row("cgroup/recvmsg6", "cgroup_sock_addr", "cgroup_udp6_recvmsg"),
    Row("cgroup/recvmsg_unix", "cgroup_sock_addr", "cgroup_unix_recvmsg"),
    Row("cgroup/getpeername4", "cgroup_sock_addr", "cgroup_inet4_getpeername"),
    Row("cgroup/getpeername6", "cgroup_sock_addr", "cgroup_inet6_getpeername"),
    Row("cgroup/getpeername_unix", "cgroup_sock_addr", "cgroup_unix_getpeername"),
    Row("cgroup/getsockname4", "cgroup_sock_addr", "cgroup_inet4_getsockname"),
    Row("cgroup/getsockname6", "cgroup_sock_addr", "cgroup_inet6_getsockname"),
    Row("cgroup/getsockname_unix", "cgroup_sock_addr", "cgroup_unix_getsockname"),
    Row("cgroup/sysctl", "cgroup_sysctl", "cgroup_sysctl"),
    Row("cgroup/getsockopt", "cgroup_sockopt", "cgroup_getsockopt"),
    Row("cgroup/setsockopt", "cgroup_sockopt", "cgroup_setsockopt"),
    Row("cgroup/dev", "cgroup_device", "cgroup_device", OPTIONAL),
    Row("struct_ops+", "struct_ops", None),
    Row("struct_ops.s+", "struct_ops", None),
    Row("sk_lookup", "sk_lookup", "sk_lookup"),
    Row("netfilter", "netfilter", "netfilter"),
)

# From aya's own list (aya-obj's ProgramSection), with what its load() passes to the kernel: most
# types there have no expected attach type, which is 0.
_AYA = (
    *(
        Row(f"{name}+", prog, ZERO)
        for prog, names in (
            ("kprobe", ("kprobe", "kretprobe", "uprobe", "uprobe.s", "uretprobe", "uretprobe.s")),
            ("tracepoint", ("tracepoint", "tp")),
            ("socket_filter", ("socket",)),
            ("sk_msg", ("sk_msg",)),
            ("sk_skb", ("sk_skb/stream_parser", "sk_skb/stream_verdict")),
            ("sock_ops", ("sockops",)),
            ("sched_cls", ("classifier",)),
            ("cgroup_skb", ("cgroup/skb",)),
            ("cgroup_sysctl", ("cgroup/sysctl",)),
            ("cgroup_device", ("cgroup/dev",)),
            ("lirc_mode2", ("lirc_mode2",)),
            ("perf_event", ("perf_event",)),
            ("raw_tracepoint", ("raw_tp", "raw_tracepoint")),
        )
        for name in names
    ),
    Row("cgroup_skb/ingress+", "cgroup_skb", ZERO),
    Row("cgroup_skb/egress+", "cgroup_skb", "cgroup_inet_egress"),
    *(
        row
        for row in _LIBBPF
        if row.prog in ("xdp", "tracing", "lsm", "ext", "sk_lookup")
        or row.prog in ("cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt")
    ),
)

_TABLES = {LIBBPF: _LIBBPF, CILIUM: _LIBBPF, AYA: _AYA}


def rows(loader: str) -> tuple[Row, ...]:
    """All rows of a loader's table."""
    return _TABLES[loader]


@lru_cache(maxsize=1024)
def find(section: str, loader: str) -> Row | None:
    """The row for a program in the section of this name, without its `?`; the first that fits."""
    for row in _TABLES[loader]:
        if _matches(section, row.pattern, loader):
            return row if loader == LIBBPF else _without_option(row, loader)
    return None


def _matches(section: str, pattern: str, loader: str) -> bool:
    if pattern.endswith("+"):
        bare = pattern[:-1]
        return section == bare or section.startswith(bare + "/")
    if loader == CILIUM:
        # As in libbpf before 1.0: "socket1", "classifier/x".
        return section.startswith(pattern)
    return section == pattern


def is_optional(prog: str, attach: str) -> bool:
    """Whether libbpf loads such a program with attach type 0 if its probe of those is refused."""
    return attach != ZERO and any(
        (row.prog, row.attach, row.flag) == (prog, attach, OPTIONAL) for row in _LIBBPF
    )


def _without_option(row: Row, loader: str) -> Row:
    # Only libbpf probes for attach types.  cilium/ebpf leaves out xdp's and always passes the
    # others; aya passes those that are in its table.
    if row.flag != OPTIONAL:
        return row
    return row._replace(
        attach=ZERO if (loader, row.prog) == (CILIUM, "xdp") else row.attach, flag=""
    )
