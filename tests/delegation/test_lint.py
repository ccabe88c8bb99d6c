"""The linter, on the examples that are documented elsewhere and on what it is for."""

import pytest

from oci_bpf_hook.bpf import attaching
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.bpf.type_facts import HOST, MAPS_WITH_BTF, WITH_TOKEN, reach
from oci_bpf_hook.delegation.annotations import parse
from oci_bpf_hook.delegation.lint import lint
from oci_bpf_hook.delegation.masks import resolve
from oci_bpf_hook.kernel.enums import table

ENUMS = table().enums(KINDS)


def codes(**lists: str) -> set[str]:
    return _codes(lists, confined=True)


def _codes(lists: dict[str, str], *, confined: bool) -> set[str]:
    annotations = {f"io.bpffs.delegate_{key}": text for key, text in lists.items()}
    request = parse(annotations, lambda: None)
    assert request is not None
    wanted, _ = resolve(request, ENUMS, table, {})
    findings = lint(wanted.masks, ENUMS, confined=confined)
    for finding in findings:
        assert finding.reason
        assert finding.fix
    return {finding.code for finding in findings}


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param(
            {
                "cmds": "map_create,obj_get,link_create",
                "maps": "hash,array,devmap,queue,stack",
                "progs": "socket_filter,kprobe,cgroup_sysctl",
                "attachs": "any",
            },
            {
                "command-without-token",
                "delegate_progs-without-prog_load",
                "delegate_attachs-without-prog_load",
                "reaches-beyond",
            },
            id="incus",
        ),
        pytest.param(
            {"cmds": "prog_load,map_create", "maps": "hash", "progs": "kprobe", "attachs": "xdp"},
            {"attach-type-0", "libbpf-probe", "without-btf", "perf-attach", "reaches-beyond"},
            id="bpftool",
        ),
        pytest.param(
            {
                "cmds": "map_create:prog_load",
                "maps": "ringbuf",
                "progs": "socket_filter",
                "attachs": "cgroup_inet_ingress",
            },
            {"without-btf"},
            id="lxd",
        ),
        pytest.param(
            {"cmds": "BPFProgLoad,BPFProgTestRun"},
            {"command-without-token", "prog_load-without-delegate_progs"},
            id="systemd",
        ),
    ],
)
def test_documented_examples(lists: dict[str, str], expected: set[str]) -> None:
    assert codes(**lists) == expected


GOOD = {
    "cmds": "map_create:prog_load:btf_load",
    "maps": "hash",
    "progs": "socket_filter:xdp",
    "attachs": "cgroup_inet_ingress",
}


def test_nothing_to_find() -> None:
    assert codes(**GOOD) == set()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"attachs": ""}, "progs-without-attachs"),
        ({"progs": ""}, "attachs-without-progs"),
        ({"cmds": "prog_load:btf_load"}, "delegate_maps-without-map_create"),
        ({"cmds": "map_create:btf_load"}, "delegate_progs-without-prog_load"),
        ({"maps": ""}, "map_create-without-delegate_maps"),
        ({"cmds": "map_create:prog_load", "maps": "task_storage"}, "maps-without-btf"),
        ({"attachs": "xdp"}, "attach-type-0"),
        ({"progs": "xdp", "attachs": "xdp"}, "attach-type-dropped"),
        ({"progs": "xdp"}, "libbpf-probe"),
        ({"progs": "socket_filter:struct_ops"}, "struct-ops-members"),
    ],
)
def test_each(change: dict[str, str], code: str) -> None:
    assert code in codes(**{**GOOD, **change})


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in ENUMS["delegate_progs"].values
        if reach("delegate_progs", name, confined=True) == HOST
    ],
)
def test_what_reaches_beyond(name: str) -> None:
    assert "reaches-beyond" in codes(**{**GOOD, "progs": f"socket_filter:{name}"})


def test_what_nothing_confines() -> None:
    assert _codes(GOOD, confined=False) == {"reaches-beyond"}
    assert _codes({"cmds": "map_create:btf_load", "maps": "hash"}, confined=False) == set()
    masks = {"delegate_progs": 1 << ENUMS["delegate_progs"].values["kprobe"] | 2}
    kprobe, others = (
        one for one in lint(masks, ENUMS, confined=False) if one.code == "reaches-beyond"
    )
    assert kprobe.reason == "kprobe reads kernel memory"
    # It is granted what takes that already.
    assert "confined: false" not in kprobe.fix
    assert others.reason.startswith("socket_filter: nothing confines")
    assert "oci-bpf-hook guard on" in others.fix


def test_the_names_exist() -> None:
    assert set(MAPS_WITH_BTF) <= ENUMS["delegate_maps"].values.keys()
    assert set(WITH_TOKEN) <= ENUMS["delegate_cmds"].values.keys()


@pytest.mark.parametrize(
    ("progs", "attachs", "named"),
    [
        ("kprobe", "cgroup_inet_ingress", ("kprobe",)),
        ("kprobe", "cgroup_inet_ingress:trace_kprobe_multi", ()),
        ("kprobe:tracepoint:perf_event", "any", ("tracepoint", "perf_event")),
        ("kprobe:raw_tracepoint:tracing", "trace_raw_tp:trace_fentry", ("kprobe",)),
        ("raw_tracepoint", "cgroup_inet_ingress", ()),
    ],
)
def test_what_is_attached_by_perf_event_open(
    progs: str, attachs: str, named: tuple[str, ...]
) -> None:
    annotations = {f"io.bpffs.delegate_{key}": text for key, text in GOOD.items()}
    annotations |= {"io.bpffs.delegate_progs": progs, "io.bpffs.delegate_attachs": attachs}
    request = parse(annotations, lambda: None)
    assert request is not None
    masks = resolve(request, ENUMS, table, {})[0].masks
    found = [one for one in lint(masks, ENUMS, confined=False) if one.code == "perf-attach"]
    assert [one.names for one in found] == ([named] if named else [])
    for one in found:
        assert str(one) == f"delegate_progs: {attaching.perf_attach(named)}"
