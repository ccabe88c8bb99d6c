"""The tables of sections, against the names of the kernel and each loader's habits."""

import pytest

from oci_bpf_hook.advise.sections import AYA, CILIUM, LIBBPF, LOADERS, ZERO, find, rows
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel.enums import table

ENUMS = table().enums(KINDS)


@pytest.mark.parametrize("loader", LOADERS)
def test_the_names_exist(loader: str) -> None:
    for row in rows(loader):
        assert row.prog in ENUMS["delegate_progs"].values
        assert row.attach is None or row.attach in ENUMS["delegate_attachs"].values
    assert ENUMS["delegate_attachs"].values[ZERO] == 0


def test_every_type_has_a_section() -> None:
    progs = {row.prog for row in rows(LIBBPF)}
    assert progs == ENUMS["delegate_progs"].values.keys() - {"unspec"}


@pytest.mark.parametrize("loader", LOADERS)
def test_every_row_is_found(loader: str) -> None:
    for row in rows(loader):
        found = find(row.pattern.rstrip("+"), loader)
        assert found
        assert (found.pattern, found.prog) == (row.pattern, row.prog)
        if row.pattern.endswith("+"):
            named = find(row.pattern.rstrip("+") + "/name", loader)
            assert named
            assert named.prog == row.prog


@pytest.mark.parametrize(
    ("section", "loader", "prog", "attach"),
    [
        ("xdp", LIBBPF, "xdp", "xdp"),
        ("xdp/devmap", LIBBPF, "xdp", "xdp_devmap"),
        ("sk_reuseport", LIBBPF, "sk_reuseport", "sk_reuseport_select"),
        ("kprobe.multi/a", LIBBPF, "kprobe", "trace_kprobe_multi"),
        ("struct_ops.s/a", LIBBPF, "struct_ops", None),
        # libbpf < 1.0 took a name's beginning, and cilium/ebpf does.
        ("socket1", LIBBPF, None, None),
        ("socket1", CILIUM, "socket_filter", ZERO),
        ("classifier/ingress", LIBBPF, None, None),
        ("classifier/ingress", CILIUM, "sched_cls", ZERO),
        ("xdp", CILIUM, "xdp", ZERO),
        ("cgroup_skb/egress", CILIUM, "cgroup_skb", "cgroup_inet_egress"),
        ("xdp", AYA, "xdp", "xdp"),
        ("sockops", AYA, "sock_ops", ZERO),
        ("kprobe.multi/a", AYA, None, None),
        ("cgroup/connect4", AYA, "cgroup_sock_addr", "cgroup_inet4_connect"),
        ("nothing", LIBBPF, None, None),
        ("", LIBBPF, None, None),
    ],
)
def test_find(section: str, loader: str, prog: str | None, attach: str | None) -> None:
    row = find(section, loader)
    assert (row.prog, row.attach) == (prog, attach) if row else prog is None
