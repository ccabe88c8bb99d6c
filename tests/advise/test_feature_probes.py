"""When loaders probe, and with what; that it is so, the corpus shows."""

import pytest

from oci_bpf_hook.advise import feature_probes
from oci_bpf_hook.advise.sections import AYA, CILIUM, LIBBPF

READ = {113}


@pytest.mark.parametrize(
    ("loader", "variables", "explained", "helpers", "externs", "expected"),
    [
        (LIBBPF, False, True, {1, 2}, set(), []),
        (LIBBPF, True, False, set(), set(), ["socket_filter"]),
        (LIBBPF, False, False, READ, set(), ["tracepoint"]),
        (
            LIBBPF,
            True,
            True,
            READ,
            {"LINUX_HAS_BPF_COOKIE"},
            ["socket_filter", *["tracepoint"] * 2],
        ),
        (CILIUM, True, False, set(), set(), []),
        (CILIUM, False, True, READ, set(), ["kprobe", "socket_filter"]),
        (AYA, True, True, READ, {"LINUX_HAS_BPF_COOKIE"}, []),
    ],
)
def test_asked(
    loader: str,
    variables: bool,
    explained: bool,
    helpers: set[int],
    externs: set[str],
    expected: list[str],
) -> None:
    found = feature_probes.asked(
        loader, variables=variables, explained=explained, helpers=helpers, externs=externs
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


@pytest.mark.parametrize("helper", [112, 113, 114, 115])
@pytest.mark.parametrize(("loader", "prog"), [(LIBBPF, "tracepoint"), (CILIUM, "kprobe")])
def test_every_helper_that_reads(helper: int, loader: str, prog: str) -> None:
    def asked(number: int) -> list[str]:
        found = feature_probes.asked(
            loader, variables=False, explained=False, helpers={number}, externs=set()
        )
        return [one.prog for one in found]

    assert asked(helper) == [prog]
    # bpf_probe_read(), and bpf_probe_read_str(), which nothing is put in the place of.
    assert asked(4) == asked(45) == []
