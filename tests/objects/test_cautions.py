"""What people are told to beware of."""

from typing import Any

import pytest

from oci_bpf_hook.advise import advice, objects
from oci_bpf_hook.advise.kernel import Kernel
from oci_bpf_hook.bpf.names import Enum
from tests.objects.test_advice import HEADERS, KERNEL, options
from tests.support.bpf import compile_text, compiled

MAP = ("-DTYPE=1", "-DKEY=int", "-DVALUE=int", "-DENTRIES=1")
LEGACY = f'{HEADERS}struct {{ int type[5]; }} old SEC("maps") = {{ {{1, 4, 4, 1, 0}} }};'


def section(name: str) -> bytes:
    return compiled("program", f'-DSECTION="{name}"', "-DRESULT=1")


def codes(data: bytes, kernel: Kernel = KERNEL, **changes: Any) -> set[str]:
    found = advice.advise([objects.read(data, "a.o")], options(**changes), kernel)
    for one in found.warnings:
        assert one.source == "a.o"
        assert one.text
    return {one.code for one in found.warnings}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (lambda: section("socket"), set()),
        (lambda: section("kprobe/x"), {"perf-attach", "reaches-beyond"}),
        (lambda: section("kprobe.multi/x"), {"reaches-beyond"}),
        (lambda: section("tracepoint/a/b"), {"perf-attach", "tracefs", "reaches-beyond"}),
        (lambda: section("tc"), {"netlink-attach", "host-network", "perhaps-perfmon"}),
        (lambda: section("tcx/egress"), {"host-network", "perhaps-perfmon"}),
        (lambda: section("cgroup/connect4"), {"host-cgroup"}),
        (lambda: section("freplace/x"), {"newer-loader", "reaches-beyond"}),
        (lambda: section("whatever"), {"unknown-section"}),
        (lambda: section("?xdp"), {"not-loaded"}),
        (lambda: compiled("prints"), {"host-network"}),
        (lambda: compiled("map", "-DTYPE=4", *MAP[1:]), {"perf-buffer"}),
        (lambda: compiled("map", "-DTYPE=99", *MAP[1:]), {"unknown-map"}),
        (lambda: compiled("map", *MAP, "-DFLAGS=64"), {"map-without-token"}),
        (lambda: compile_text(LEGACY), {"legacy-map"}),
        (lambda: compiled("kconfig"), {"kernel-configuration", "reaches-beyond"}),
        (
            lambda: compile_text(f'{HEADERS}int t SEC(".jumptables") = 1;'),
            {"map-without-token", "reaches-beyond"},
        ),
        (lambda: compile_text("int nothing(void) { return 0; }"), {"nothing"}),
        (lambda: compiled("tcp_rate"), {"reaches-beyond"}),
    ],
)
def test_codes(data: Any, expected: set[str]) -> None:
    assert codes(data()) - {"nothing"} == expected - {"nothing"}
    assert ("nothing" in codes(data())) == ("nothing" in expected)


def test_pins() -> None:
    assert "pinned" in codes(compiled("pinned"))


def test_loaders() -> None:
    assert "loader-without-token" in codes(section("xdp"), loader="aya")
    assert "not-loaded" not in codes(section("?xdp"), loader="cilium")


@pytest.mark.parametrize("name", ["socket", "xdp", "cgroup/connect4"])
def test_releases_without_tokens(name: str) -> None:
    """cilium/ebpf's since 0.22 have them, whatever the object."""
    assert "newer-loader" in codes(section(name), loader="cilium")
    for loader in ("libbpf", "aya"):
        assert "newer-loader" not in codes(section(name), loader=loader)


JUMPS = f'{HEADERS}int t SEC(".jumptables") = 1;'


@pytest.mark.parametrize(("text", "code"), [(LEGACY, "legacy-map"), (JUMPS, "map-without-token")])
def test_what_only_libbpf_refuses(text: str, code: str) -> None:
    """cilium/ebpf and aya read the section maps, and the types in it are needed all the same."""
    for loader in ("cilium", "aya"):
        assert code not in codes(compile_text(text), loader=loader)
    assert code in codes(compile_text(text))


def test_static_programs() -> None:
    text = f'{HEADERS}SEC("socket") {{}} int program(void *ctx) {{{{ return 0; }}}}'
    static = compile_text(text.format("__attribute__((used)) static"))
    assert "static-program" in codes(static)
    assert "static-program" not in codes(static, loader="cilium")
    assert "static-program" not in codes(compile_text(text.format("")))
    assert "static-program" not in codes(compiled("functions"))


def test_programs_that_were_chosen() -> None:
    """Of what is loaded nobody is told that it isn't, nor of what was left out on purpose."""
    assert "not-loaded" not in codes(section("?xdp"), only=frozenset(["program"]))
    assert "not-loaded" not in codes(section("?xdp"), skip=frozenset(["program"]))
    assert "unknown-section" not in codes(section("whatever"), skip=frozenset(["program"]))
    assert "unknown-section" in codes(section("whatever"), only=frozenset(["program"]))


def test_names_that_the_kernel_lacks() -> None:
    values = {
        name: value
        for name, value in KERNEL.names["delegate_progs"].values.items()
        if name != "netfilter"
    }
    progs = KERNEL.names["delegate_progs"]
    older = Kernel(
        names=KERNEL.names,
        known={**KERNEL.known, "delegate_progs": Enum(progs.kind, values)},
        btf=KERNEL.btf,
    )
    assert "not-in-kernel" in codes(section("netfilter"), older)
    assert "not-in-kernel" not in codes(section("netfilter"))


def test_struct_ops_that_the_kernel_lacks() -> None:
    text = compiled("dummy_ops").replace(b"bpf_dummy_ops\0", b"bpf_dummy_opz\0")
    assert "struct-ops-members" in codes(text)
    assert "struct-ops-members" not in codes(compiled("dummy_ops"))
    text = compiled("dummy_ops").replace(b"test_1\0", b"test_9\0")
    assert "struct-ops-members" in codes(text)
