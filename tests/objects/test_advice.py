"""From objects to needs: the options, the kernel, and what objects have to do with each other."""

from typing import Any

import pytest

from oci_bpf_hook.advise import advice, calls, needs, objects
from oci_bpf_hook.advise.advice import DEFAULTS, Options
from oci_bpf_hook.advise.kernel import Kernel, union
from oci_bpf_hook.advise.needs import Needs
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel import enums as kernel
from tests.support.bpf import compile_text, compiled, vmlinux

TABLE = kernel.table().enums(KINDS)
KERNEL = Kernel(names=TABLE, known=TABLE, btf=vmlinux())
HEADERS = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"


def options(**changes: Any) -> Options:
    return Options(**{**{name: getattr(DEFAULTS, name) for name in Options.__slots__}, **changes})


def advised(*names: str, how: Options = DEFAULTS, given: Needs = needs.NOTHING) -> Needs:
    found = [objects.read(compiled(name), name) for name in names]
    return advice.advise(found, how, KERNEL, given)


def lists(found: Needs) -> dict[str, list[str]]:
    return found.lists(TABLE)


def program(section: str) -> objects.Object:
    defines = (f'-DSECTION="{section}"', "-DRESULT=1")
    return objects.read(compiled("program", *defines), section)


def test_one_program() -> None:
    found = advice.advise([program("xdp")], DEFAULTS, KERNEL)
    assert lists(found) == {
        "delegate_cmds": ["prog_load", "btf_load"],
        "delegate_maps": [],
        "delegate_progs": ["socket_filter", "xdp"],
        "delegate_attachs": ["cgroup_inet_ingress"],
        "capabilities": ["net_admin", "bpf"],
    }
    (reason,) = found.why("delegate_progs", "xdp")
    assert (reason.source, reason.kind) == ("xdp", "program")
    assert reason.why == 'program program, SEC("xdp"), whose attach type xdp is optional'


def test_the_release() -> None:
    """libbpf 1.8 doesn't load a program of its own first."""
    found = advice.advise([program("cgroup/connect4")], options(libbpf="1.8"), KERNEL)
    assert lists(found)["delegate_progs"] == ["cgroup_sock_addr"]
    assert lists(found)["delegate_attachs"] == ["cgroup_inet4_connect"]


def test_exact() -> None:
    how = options(exact=True)
    found = lists(advice.advise([program("xdp")], how, KERNEL))
    assert found["delegate_progs"] == ["socket_filter", "xdp", "cgroup_sock"]
    assert found["delegate_attachs"] == ["cgroup_inet_ingress", "cgroup_inet_sock_create", "xdp"]
    # Nothing to be exact about.
    for section in ("cgroup_skb/ingress", "cgroup/connect4"):
        assert advice.advise([program(section)], how, KERNEL) == advice.advise(
            [program(section)], DEFAULTS, KERNEL
        )


def test_what_makes_a_probe_succeed() -> None:
    """Another's cgroup program, or one that is recorded, has libbpf find out about attach types."""
    other = program("cgroup/sock_create")
    found = lists(advice.advise([program("xdp"), other], DEFAULTS, KERNEL))
    assert "xdp" in found["delegate_attachs"]
    given = needs.make(
        reasons=calls.prog_load(
            "cgroup_sock", "cgroup_inet_sock_create", source="r", kind=needs.CALL, why="seen"
        ),
        warnings=(),
    )
    assert advice.advise([program("xdp")], DEFAULTS, KERNEL, given).masks(TABLE) == advice.advise(
        [program("xdp"), other], DEFAULTS, KERNEL
    ).masks(TABLE)


def test_struct_ops_can_make_it_succeed() -> None:
    """Member 2 has the attach type of the probe, and SEC("cgroup/sock") its program type."""
    ops = objects.read(compiled("tcp_loss"), "ops")
    found = lists(advice.advise([program("xdp"), ops, program("cgroup/dev")], DEFAULTS, KERNEL))
    assert "xdp" not in found["delegate_attachs"]
    everything = [program("xdp"), ops, program("cgroup/post_bind4")]
    assert "xdp" in lists(advice.advise(everything, DEFAULTS, KERNEL))["delegate_attachs"]


def test_shares() -> None:
    both = advised("tcx", "functions")
    assert both.sources == ("tcx", "functions")
    assert (both.shares()["tcx"] | both.shares()["functions"]).bits == both.bits
    # Each share is enough for its object.
    for name in both.sources:
        assert both.shares()[name].bits == advised(name).bits


def test_a_share_with_anothers_probe() -> None:
    """Where another's tracepoint program is delegated, libbpf's first probe takes that."""
    both = advice.advise([program("cgroup/connect4"), program("tp/a/b")], DEFAULTS, KERNEL)
    share = lists(both.shares()["cgroup/connect4"])
    assert share["delegate_progs"] == ["tracepoint", "cgroup_sock_addr"]
    assert "perfmon" in share["capabilities"]


def test_only_and_skip() -> None:
    only = advised("xdp_redirect", how=options(only=frozenset(["at_cpu"])))
    assert lists(only)["delegate_attachs"] == ["cgroup_inet_ingress", "xdp_cpumap"]
    skip = advised("xdp_redirect", how=options(skip=frozenset(["at_cpu"])))
    assert lists(skip)["delegate_attachs"] == ["cgroup_inet_ingress", "xdp_devmap"]
    # The maps are made all the same.
    assert lists(only)["delegate_maps"] == lists(skip)["delegate_maps"]


def test_left_out_unless_asked_for() -> None:
    assert lists(advised("choices"))["delegate_progs"] == ["socket_filter"]
    found = advised("choices", how=options(only=frozenset(["left_out"])))
    assert "xdp" in lists(found)["delegate_progs"]
    found = advised("choices", how=options(loader="cilium"))
    assert "xdp" in lists(found)["delegate_progs"]


def test_struct_ops() -> None:
    names = TABLE["delegate_attachs"].names
    wanted = [names[number] for number in (0, 1, 8)]
    assert lists(advised("flavour"))["delegate_attachs"] == wanted
    (first, *_) = advised("flavour").why("delegate_attachs", names[8])
    assert "member 8 of struct tcp_congestion_ops, undo_cwnd" in first.why


def test_struct_ops_without_the_kernels_types() -> None:
    blind = Kernel(names=TABLE, known=TABLE, btf=None)
    found = advice.advise([objects.read(compiled("flavour"), "f")], DEFAULTS, blind)
    assert lists(found)["delegate_progs"] == ["socket_filter"]
    (warning, other) = (one for one in found.warnings if one.code == "struct-ops-members")
    assert "name one by --btf" in warning.text
    assert warning.source == other.source == "f"


def test_usdt() -> None:
    assert "trace_uprobe_multi" in lists(advised("usdt"))["delegate_attachs"]


def test_variables_and_reads() -> None:
    found = lists(advised("functions"))
    assert found["delegate_progs"] == ["socket_filter", "raw_tracepoint"]
    assert found["capabilities"] == ["perfmon", "bpf"]
    found = lists(advised("variables"))
    assert (found["delegate_maps"], found["delegate_progs"]) == (["array"], ["socket_filter"])


@pytest.mark.parametrize("release", [None, "1.5", "1.6"])
def test_freplace(release: str | None) -> None:
    found = advice.advise([program("freplace/x")], options(libbpf=release), KERNEL)
    needed = release != "1.5"
    assert ("btf_get_fd_by_id" in lists(found)["delegate_cmds"]) == needed
    assert ("sys_admin" in lists(found)["capabilities"]) == needed


def test_jump_tables() -> None:
    text = f'{HEADERS}int table SEC(".jumptables") = 1;'
    found = advice.advise([objects.read(compile_text(text), "")], DEFAULTS, KERNEL)
    assert "insn_array" in lists(found)["delegate_maps"]


def test_without_types() -> None:
    found = advice.advise([objects.read(compiled("variables", "-g0"), "")], DEFAULTS, KERNEL)
    assert lists(found)["delegate_cmds"] == ["map_create", "prog_load"]


def test_nothing() -> None:
    assert advice.advise([], DEFAULTS, KERNEL) == needs.NOTHING


def test_union_of_names() -> None:
    running = kernel.enums(KINDS)
    both = union(TABLE, running)
    for option, enum in both.items():
        assert TABLE[option].values.items() | running[option].values.items() == enum.values.items()
