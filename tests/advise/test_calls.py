"""What each call takes; that the kernel asks for no less, the corpus shows."""

import pytest

from oci_bpf_hook.advise import calls, needs
from oci_bpf_hook.advise.needs import Reason


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (calls.prog_load("socket_filter", "x", source="", kind="", why=""), {"bpf"}),
        (calls.prog_load("kprobe", "x", source="", kind="", why=""), {"bpf", "perfmon"}),
        (calls.prog_load("ext", "x", source="", kind="", why=""), {"bpf", "perfmon", "net_admin"}),
        (calls.map_create("cpumap", source="", kind="", why=""), {"bpf"}),
        (calls.map_create("xskmap", source="", kind="", why=""), {"bpf", "net_admin"}),
        (calls.btf_load(source="", kind="", why=""), {"bpf"}),
        (calls.btf_get_fd_by_id(source="", kind="", why=""), {"sys_admin"}),
    ],
)
def test_capabilities(reasons: tuple[Reason, ...], expected: set[str]) -> None:
    assert {one.name for one in reasons if one.option == needs.CAPABILITY} == expected


def test_bits() -> None:
    found = calls.prog_load("xdp", "xdp_devmap", source="a.o", kind=needs.PROGRAM, why="program x")
    assert [(one.option, one.name) for one in found] == [
        ("delegate_cmds", "prog_load"),
        ("delegate_progs", "xdp"),
        ("delegate_attachs", "xdp_devmap"),
        ("capabilities", "bpf"),
        ("capabilities", "net_admin"),
    ]
    assert {(one.source, one.kind, one.why) for one in found} == {("a.o", "program", "program x")}
