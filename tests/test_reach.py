"""reach.py: what stays in a container, and what doesn't."""

from oci_bpf_hook.lint import BEYOND, ON_CGROUP, ON_NETWORK
from oci_bpf_hook.reach import HOST, OF_CGROUP, OF_NETWORK, OWN, exposures, reach


def codes(*programs: str, network: bool = True, cgroup: bool = True) -> list[str]:
    return [one.code for one in exposures(programs, host_network=network, host_cgroup=cgroup)]


def test_reach() -> None:
    assert {reach("delegate_progs", name) for name in BEYOND} == {HOST}
    assert {reach("delegate_progs", name) for name in ON_NETWORK} == {OF_NETWORK}
    assert {reach("delegate_progs", name) for name in ON_CGROUP} == {OF_CGROUP}
    assert reach("delegate_progs", "socket_filter") == OWN
    # The attach type of that name is no program.
    assert reach("delegate_attachs", "xdp") == OWN
    assert reach("delegate_maps", "struct_ops") == HOST


def test_exposures() -> None:
    assert codes("socket_filter", "xdp", "cgroup_skb", "kprobe") == [
        "host-network",
        "host-cgroup",
        "reaches-beyond",
    ]
    assert codes("xdp", "cgroup_skb", network=False, cgroup=False) == []
    assert codes("socket_filter") == []
    (one,) = exposures(["xdp", "sched_cls"], host_network=True, host_cgroup=True)
    assert one.names == ("xdp", "sched_cls")
