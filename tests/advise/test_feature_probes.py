"""When loaders probe, and with what; that it is so, the corpus shows."""

import pytest

from oci_bpf_hook.advise import feature_probes
from oci_bpf_hook.advise.sections import AYA, CILIUM, LIBBPF


@pytest.mark.parametrize(
    ("loader", "variables", "explained", "reads", "externs", "expected"),
    [
        (LIBBPF, False, True, False, set(), []),
        (LIBBPF, True, False, False, set(), ["socket_filter"]),
        (LIBBPF, False, False, True, set(), ["tracepoint"]),
        (
            LIBBPF,
            True,
            True,
            True,
            {"LINUX_HAS_BPF_COOKIE"},
            ["socket_filter", *["tracepoint"] * 2],
        ),
        (CILIUM, True, False, False, set(), []),
        (CILIUM, False, True, True, set(), ["kprobe", "socket_filter"]),
        (AYA, True, True, True, {"LINUX_HAS_BPF_COOKIE"}, []),
    ],
)
def test_asked(
    loader: str,
    variables: bool,
    explained: bool,
    reads: bool,
    externs: set[str],
    expected: list[str],
) -> None:
    found = feature_probes.asked(
        loader, variables=variables, explained=explained, reads=reads, externs=externs
    )
    assert [probe.prog for probe in found] == expected
    assert {probe.attach for probe in found} <= {"cgroup_inet_ingress"}


@pytest.mark.parametrize(
    ("release", "own", "others", "prog"),
    [
        (None, {"xdp"}, {"xdp"}, "socket_filter"),
        ("1.7", {"xdp"}, {"xdp", "tracepoint"}, "tracepoint"),
        ("1.7", {"tracepoint"}, {"socket_filter", "tracepoint"}, "tracepoint"),
        ("1.4", {"xdp"}, {"socket_filter", "tracepoint"}, "socket_filter"),
        ("1.8", {"xdp"}, {"xdp"}, None),
    ],
)
def test_first(release: str | None, own: set[str], others: set[str], prog: str | None) -> None:
    probe = feature_probes.first(release, own, others)
    assert (probe.prog if probe else None) == prog


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "s390x"])
def test_who_reads_alike(machine: str) -> None:
    same = machine != "s390x"
    assert feature_probes.read_alike(["tracing", "raw_tracepoint", "kprobe"], machine) == same
    assert not feature_probes.read_alike(["tracing", "xdp"], machine)
    assert not feature_probes.read_alike(["ext"], machine)
