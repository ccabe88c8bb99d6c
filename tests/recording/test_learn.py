"""From recordings to needs."""

import os
from typing import Any

import pytest

from oci_bpf_hook.advise.feature_probes import read_alike
from oci_bpf_hook.advise.needs import PROBE
from oci_bpf_hook.bpf import attaching
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.recording.learn import attach_type_is_optional, learn
from oci_bpf_hook.recording.recording import Entry, Recording

ENUMS = table().enums(KINDS)
NUMBERS = {
    "cmd": "delegate_cmds",
    "map_type": "delegate_maps",
    "prog_type": "delegate_progs",
    "attach_type": "delegate_attachs",
}
LOADING = {"cmd": "prog_load", "prog_type": "socket_filter", "probe": "loading"}
XDP = {"cmd": "prog_load", "prog_type": "xdp", "attach_type": "xdp", "optional": True}
EXP_ATTACH = {
    "cmd": "prog_load",
    "prog_type": "cgroup_sock",
    "attach_type": "cgroup_inet_sock_create",
    "probe": "exp_attach_type",
}


def entry(**fields: Any) -> Entry:
    known: dict[str, Any] = {
        **dict.fromkeys(Entry.__slots__),
    }
    known |= {"flags": 0, "helpers": (), "name": "", "token": True, "result": "ok"}
    known |= {"probe": "", "optional": False, "btf": False, "arithmetic": "", "unseen": False}
    if "prog_type" in fields:
        fields.setdefault("attach_type", "cgroup_inet_ingress")
    for key, option in NUMBERS.items():
        if isinstance(fields.get(key), str):
            fields[key] = ENUMS[option].values[fields[key]]
    return Entry(**known | fields)


def recording(*entries: dict[str, Any], granted: dict[str, int] | None = None) -> Recording:
    made = Recording(["program"], granted=granted)
    for fields in entries:
        made.count(entry(**fields), 2)
    return made


def bits(*entries: dict[str, Any], exact: bool = False) -> dict[str, list[str]]:
    found = learn(recording(*entries), ENUMS, exact=exact).lists(ENUMS)
    return {option.removeprefix("delegate_"): names for option, names in found.items() if names}


def codes(*entries: dict[str, Any], **more: Any) -> list[str]:
    return [one.code for one in learn(recording(*entries, **more), ENUMS).warnings]


def test_own_calls() -> None:
    needs = learn(recording({"cmd": "map_create", "map_type": "hash", "name": "flows"}), ENUMS)
    assert needs.lists(ENUMS) == {
        "delegate_cmds": ["map_create"],
        "delegate_maps": ["hash"],
        "delegate_progs": [],
        "delegate_attachs": [],
        "capabilities": ["bpf"],
    }
    (why,) = {reason.why for reason in needs.reasons}
    assert why == "it calls map_create hash (flows) 2 times"
    described = {"cmd": "map_create", "map_type": "hash", "btf": True}
    assert bits({"cmd": "btf_load"}, described)["cmds"] == ["map_create", "btf_load"]
    # libbpf loads it for maps too that then have none.
    assert bits({"cmd": "btf_load"}) == {}
    assert codes({"cmd": "btf_load"}) == ["btf-unused"]
    assert bits({"cmd": "btf_get_fd_by_id"})["capabilities"] == ["sys_admin"]


def test_optional_attach_types() -> None:
    plain = bits(LOADING, EXP_ATTACH, XDP)
    assert (plain["progs"], plain["attachs"]) == (["socket_filter", "xdp"], ["cgroup_inet_ingress"])
    exact = bits(LOADING, EXP_ATTACH, XDP, exact=True)
    assert exact["progs"] == ["socket_filter", "xdp", "cgroup_sock"]
    assert exact["attachs"] == ["cgroup_inet_ingress", "cgroup_inet_sock_create", "xdp"]


def test_the_probe_is_made_for_others_too() -> None:
    # SEC("cgroup_skb/ingress") may have its attach type left away, and that is 0 anyhow.
    ingress = {"cmd": "prog_load", "prog_type": "cgroup_skb", "optional": True}
    assert bits(EXP_ATTACH, ingress, exact=True)["progs"] == ["cgroup_skb"]


def test_what_is_not_optional() -> None:
    for fields in (
        {"optional": False},  # No probe of libbpf's was there.
        {"flags": 1 << 5},  # SEC("xdp.frags")
        {"attach_type": "xdp_devmap"},
    ):
        assert "cgroup_inet_ingress" not in bits({**XDP, **fields})["attachs"]
    needed = entry(**XDP)
    assert attach_type_is_optional(needed, ENUMS)
    assert not attach_type_is_optional(entry(cmd="map_create", map_type="hash"), ENUMS)


def test_with_cgroup_sock_of_its_own_the_probe_succeeds() -> None:
    own = {key: value for key, value in EXP_ATTACH.items() if key != "probe"}
    assert bits(XDP, own)["attachs"] == ["cgroup_inet_sock_create", "xdp"]
    # Which is what the kernel makes of 0.
    assert bits({**own, "attach_type": "cgroup_inet_ingress"})["attachs"] == [
        "cgroup_inet_sock_create"
    ]


def test_the_first_probe() -> None:
    assert bits(LOADING)["progs"] == ["socket_filter"]
    (kind,) = {reason.kind for reason in learn(recording(LOADING), ENUMS).reasons}
    assert kind == PROBE
    # A tracepoint program will do, where there is one.
    tracepoint = {"cmd": "prog_load", "prog_type": "tracepoint"}
    assert bits(LOADING, tracepoint)["progs"] == ["tracepoint"]
    # So will another probe's.
    read = {**tracepoint, "probe": "probe_read_kern"}
    xdp = {"cmd": "prog_load", "prog_type": "xdp", "helpers": (113,)}
    assert bits(LOADING, read, xdp)["progs"] == ["tracepoint", "xdp"]


def test_other_probes() -> None:
    array = {"cmd": "map_create", "map_type": "array", "probe": "global_data"}
    assert bits(array)["maps"] == ["array"]
    cosmetic = [
        {"cmd": "map_create", "map_type": "array", "probe": "array_mmap"},
        {"cmd": "prog_load", "prog_type": "kprobe", "probe": "arg_ctx_tag"},
        {"cmd": "btf_load", "probe": "btf"},
    ]
    assert bits(*cosmetic, EXP_ATTACH) == {}
    read = {"cmd": "prog_load", "prog_type": "tracepoint", "probe": "probe_read_kern"}
    xdp = {"cmd": "prog_load", "prog_type": "xdp"}
    # For programs that aren't loaded it is made as well, and if refused another helper is there.
    assert bits(read, xdp)["progs"] == ["xdp"]
    assert bits(read, {**xdp, "helpers": (113,)})["progs"] == ["tracepoint", "xdp"]
    assert bits({**read, "result": "EPERM"}, xdp)["progs"] == ["tracepoint", "xdp"]


def test_results() -> None:
    hash_map = {"cmd": "map_create", "map_type": "hash"}
    for result in ("ok", None, "EPERM", "EACCES"):
        assert bits({**hash_map, "result": result})["maps"] == ["hash"]
    assert bits({**hash_map, "result": "EINVAL"}) == {}
    assert codes({**hash_map, "result": "EPERM"}) == ["refused"]
    assert codes({**hash_map, "result": "EINVAL"}) == ["failed"]
    # Tried again without BTF, say.
    assert codes({**hash_map, "result": "EINVAL"}, hash_map) == []


def test_without_a_token() -> None:
    with_token = {"cmd": "map_create", "map_type": "hash"}
    without = {"cmd": "map_create", "map_type": "array", "token": False}
    assert bits(with_token, without)["maps"] == ["hash"]
    assert codes(with_token, without) == ["without-token"]
    # Of libbpf's own, one in every run, nobody wants to know.
    assert codes(with_token, {**LOADING, "probe": "memcg_account", "token": False}) == []
    # A trace of root on the host, who needs none.
    assert bits(without)["maps"] == ["array"]
    assert codes(without) == []
    assert codes(without, granted={"delegate_cmds": 1}) == ["no-token"]


def test_beyond_the_kernel() -> None:
    assert codes({"cmd": "map_create", "map_type": 200}) == ["not-delegable"]
    program = {"cmd": "prog_load", "prog_type": "struct_ops", "attach_type": 70}
    assert codes(program) == ["not-delegable"]
    assert bits(program) == {}


def test_capabilities() -> None:
    program = {"cmd": "prog_load", "prog_type": "cgroup_skb"}
    assert bits(program)["capabilities"] == ["bpf"]
    assert bits({**program, "helpers": (1, 6)})["capabilities"] == ["perfmon", "bpf"]
    pointers = {**program, "arithmetic": "subtracts a pointer"}
    assert bits(pointers)["capabilities"] == ["perfmon", "bpf"]
    attach = {"cmd": "link_create", "attach_type": "cgroup_inet_egress", "token": False}
    assert bits(program, attach)["capabilities"] == ["net_admin", "bpf"]


def test_an_arena() -> None:
    arena = {"cmd": "map_create", "map_type": "arena"}
    assert bits(arena)["capabilities"] == ["bpf"]
    program = {"cmd": "prog_load", "prog_type": "socket_filter"}
    assert bits(arena, program)["capabilities"] == ["perfmon", "bpf"]


def test_what_could_not_be_seen() -> None:
    made = recording({"cmd": "map_create", "map_type": "hash", "result": None})
    made.blind, made.dropped = "No space left on device", 7
    assert [one.code for one in learn(made, ENUMS).warnings] == ["results-unknown", "incomplete"]


@pytest.mark.parametrize("result", ["ok", None, "EPERM", "EACCES", "EFAULT"])
def test_what_could_not_be_read(result: str | None) -> None:
    """Calls with addresses that lead nowhere, where what they returned isn't known either."""
    for cmd in ("map_create", "prog_load"):
        nothing = {"cmd": cmd, "result": result}
        assert bits(nothing) == {}
        assert codes(nothing) == ["failed" if result == "EFAULT" else "unread"]


@pytest.mark.parametrize("helper", [112, 113, 114, 115])
def test_every_helper_that_reads(helper: int) -> None:
    """libbpf asks for bpf_probe_read_kernel() for each of them."""
    probe = {"cmd": "prog_load", "prog_type": "tracepoint", "probe": "probe_read_kern"}
    reads = {"cmd": "prog_load", "prog_type": "xdp", "helpers": (helper,)}
    assert bits(probe, reads)["progs"] == ["tracepoint", "xdp"]
    assert bits(probe, {**reads, "helpers": (4,)})["progs"] == ["xdp"]


@pytest.mark.parametrize("result", ["ok", "EPERM"])
@pytest.mark.skipif(not read_alike([], os.uname().machine), reason="programs read otherwise here")
def test_programs_that_read_alike(result: str) -> None:
    """As advise does: after a refusal they have helpers that read the same."""
    probe = {"cmd": "prog_load", "prog_type": "tracepoint", "probe": "probe_read_kern"}
    probe["result"] = result
    helper = 113 if result == "ok" else 4
    reads = {"cmd": "prog_load", "prog_type": "kprobe", "helpers": (helper,)}
    assert bits(LOADING, probe, reads)["progs"] == ["socket_filter", "kprobe"]
    codes = {one.code for one in learn(recording(probe, reads), ENUMS).warnings}
    assert "probe-left-out" in codes
    # Another program needs the type anyway, or can't do without the probe.
    own = {"cmd": "prog_load", "prog_type": "tracepoint"}
    for more in (own, {"cmd": "prog_load", "prog_type": "xdp", "helpers": (helper,)}):
        found = learn(recording(probe, reads, more), ENUMS)
        assert "tracepoint" in found.lists(ENUMS)["delegate_progs"]
        assert "probe-left-out" not in {one.code for one in found.warnings}


def test_what_is_attached_by_perf_event_open() -> None:
    def loaded(prog: str, attach: str = "cgroup_inet_ingress", **more: Any) -> dict[str, Any]:
        return {"cmd": "prog_load", "prog_type": prog, "attach_type": attach, **more}

    found = learn(
        recording(loaded("kprobe", name="entry"), loaded("perf_event"), loaded("tracepoint")), ENUMS
    )
    (one,) = found.warnings
    assert one.code == attaching.PERF_ATTACH
    assert one.text == attaching.perf_attach(("entry", "perf_event", "tracepoint"))
    assert codes(loaded("kprobe", "trace_kprobe_multi"), loaded("raw_tracepoint")) == []
    # libbpf's own probes attach nothing.
    assert codes({**LOADING, "prog_type": "tracepoint"}) == []
