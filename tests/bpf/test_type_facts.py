"""What is known of the types, and that whatever says how far a name reaches says the same."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.bpf.capabilities import (
    MAPS_WITH_NET_ADMIN,
    capabilities,
    programs_that_take,
    takes,
)
from oci_bpf_hook.bpf.exposures import exposures
from oci_bpf_hook.bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Enum, Kind
from oci_bpf_hook.bpf.type_facts import (
    ALWAYS,
    CGROUP,
    HOST,
    MAPS_WITH_BTF,
    MAYBE,
    NET_ADMIN,
    NETWORK,
    OWN,
    PERFMON,
    PROGRAMS,
    REACHES_BEYOND,
    WITH_TOKEN,
    attach_type_0,
    reach,
    why,
)
from oci_bpf_hook.cli.commands.inspect import as_json
from oci_bpf_hook.container.namespaces import Process
from oci_bpf_hook.delegation.lint import lint
from oci_bpf_hook.doctor import programs
from oci_bpf_hook.errors import REFUSED
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.running.delegations import Delegation, warnings
from oci_bpf_hook.running.page import page
from oci_bpf_hook.running.process import status
from tests.running.test_page import delegation
from tests.support.command import answer, command

# Programs of a process's own sockets, of a network namespace, and of a cgroup.
ON_SOCKETS = ("socket_filter", "sk_skb", "sk_msg", "sk_reuseport")
ON_NETWORK = (
    *("sched_cls", "sched_act", "xdp", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local"),
    *("flow_dissector", "sk_lookup", "netfilter"),
)
ON_CGROUP = (
    *("cgroup_skb", "cgroup_sock", "sock_ops", "cgroup_device", "cgroup_sock_addr"),
    *("cgroup_sysctl", "cgroup_sockopt"),
)
Say = Callable[..., bool]
TABLE = table().enums(KINDS)
# What a newer kernel might have.
UNKNOWN = "surprise"


def with_unknown(enum: Enum) -> Enum:
    return Enum(enum.kind, {**enum.values, UNKNOWN: max(enum.values.values()) + 1})


ENUMS = {option: with_unknown(enum) for option, enum in TABLE.items()}
# A container, of which only what is delegated matters.
ANYTHING = delegation("x")
# Every name but the aliases, which stand for the same bits.
EVERY = [(kind, name) for kind in KINDS for name in ENUMS[kind.option].names.values()]


def codes(*names: str, confined: bool, network: bool = True, cgroup: bool = True) -> list[str]:
    given = {"delegate_progs": names}
    found = exposures(given, confined=confined, host_network=network, host_cgroup=cgroup)
    return [one.code for one in found]


def test_unconfined_every_program_type_reaches_the_kernel() -> None:
    progs = ENUMS["delegate_progs"].values.keys() - {"unspec"}
    assert {reach("delegate_progs", name, confined=False) for name in progs} == {HOST}
    # No program is of that type, which the kernel has no operations for.
    assert reach("delegate_progs", "unspec", confined=False) == OWN


def test_confined() -> None:
    found = {
        name: reach("delegate_progs", name, confined=True) for name in TABLE[PROGS.option].values
    }
    for names, far in ((ON_SOCKETS, OWN), (ON_NETWORK, NETWORK), (ON_CGROUP, CGROUP)):
        assert {found.pop(name) for name in names} == {far}
    assert found.pop("unspec") == OWN
    # What takes CAP_PERFMON no confined token loads, nor what reaches the kernel without a call.
    assert found.keys() == {*programs_that_take(PERFMON), "syscall", "lirc_mode2"}
    assert set(found.values()) == {HOST}
    # Each says why, and of none is said that it isn't known.
    assert not any("isn't known" in why(name) for name in found)


@pytest.mark.parametrize("confined", [True, False])
def test_what_is_no_program(*, confined: bool) -> None:
    for kind in (CMDS, MAPS, ATTACHS):
        names = TABLE[kind.option].values.keys()
        found = {name for name in names if reach(kind.option, name, confined=confined) != OWN}
        assert found == (
            {"struct_ops", "insn_array"}
            if kind is MAPS
            else {"btf_get_fd_by_id"}
            if kind is CMDS and not confined
            else set()
        )
    # An attach type gives nothing without a program type, and that is what counts.
    assert reach("delegate_attachs", "xdp", confined=confined) == OWN
    assert reach("delegate_attachs", UNKNOWN, confined=confined) == OWN


@pytest.mark.parametrize("kind", [CMDS, MAPS, PROGS], ids=lambda kind: kind.option)
@pytest.mark.parametrize("confined", [True, False])
def test_what_is_not_known_reaches_the_kernel(kind: Kind, *, confined: bool) -> None:
    assert reach(kind.option, UNKNOWN, confined=confined) == HOST
    assert "isn't known here" in why(UNKNOWN)


def test_every_type_of_the_table_is_known() -> None:
    """Of a type that is missed here it is said that it reaches the host, which is no fact."""
    for name in TABLE[PROGS.option].values:
        assert reach(PROGS.option, name, confined=True) != HOST or "isn't known" not in why(name)
    for name in TABLE[MAPS.option].values:
        assert reach(MAPS.option, name, confined=True) != HOST or "isn't known" not in why(name)
    # Where numbers are looked up by it, the order counts.
    assert dict(enumerate(PROGRAMS)) == TABLE[PROGS.option].names
    assert {*MAPS_WITH_BTF, *MAPS_WITH_NET_ADMIN} <= TABLE[MAPS.option].values.keys()
    assert {*programs_that_take(NET_ADMIN)} <= TABLE[PROGS.option].values.keys()
    assert set(WITH_TOKEN) <= TABLE[CMDS.option].values.keys()
    assert {attach_type_0(name) for name in ("xdp", "sk_msg")} == {MAYBE}
    assert {attach_type_0(name) for name in ("kprobe", "ext")} == {ALWAYS}


def test_capabilities() -> None:
    def of(kind: Kind, name: str) -> tuple[str, ...]:
        return capabilities({kind.option: 1 << ENUMS[kind.option].values[name]}, ENUMS)

    assert capabilities({}, ENUMS) == of(MAPS, "hash") == of(PROGS, "sk_lookup") == ("BPF",)
    assert of(MAPS, "devmap") == of(PROGS, "xdp") == ("BPF", "NET_ADMIN")
    assert of(PROGS, "lsm") == ("BPF", "PERFMON")
    assert of(PROGS, "ext") == ("BPF", "NET_ADMIN", "PERFMON")
    assert takes(UNKNOWN) == ()


def test_exposures() -> None:
    assert codes("socket_filter", "xdp", "cgroup_skb", "kprobe", confined=True) == [
        "host-network",
        "host-cgroup",
        "reaches-beyond",
    ]
    assert codes("xdp", "cgroup_skb", confined=True, network=False, cgroup=False) == []
    assert codes("socket_filter", confined=True) == []
    assert codes("socket_filter", confined=False) == ["reaches-beyond"]
    # Where nothing confines it it attaches to the host's network besides.
    assert codes("xdp", confined=False) == ["host-network", "reaches-beyond"]
    given = {"delegate_progs": ["xdp", "sched_cls"]}
    (one,) = exposures(given, confined=True, host_network=True, host_cgroup=True)
    assert one.names == ("xdp", "sched_cls")


def test_what_to_do() -> None:
    def fix(*names: str) -> str:
        given = {"delegate_progs": names, "delegate_maps": ["hash"]}
        (one,) = exposures(given, confined=False, host_network=False, host_cgroup=False)
        return one.fix

    assert fix("xdp").startswith("turn the guard on (oci-bpf-hook guard on)")
    # No rule that is confined gives these.
    mixed = fix("xdp", "tracing", "kprobe")
    assert mixed.startswith("leave tracing, kprobe out of delegate_progs, and turn the guard on")
    assert fix("tracing") == "leave tracing out of delegate_progs, if nothing in it needs them"


def test_an_exposure_of_what_is_no_program() -> None:
    given = {"delegate_maps": ["hash", "struct_ops"], "delegate_cmds": ["map_create"]}
    for confined in (True, False):
        (one,) = exposures(given, confined=confined, host_network=False, host_cgroup=False)
        assert (one.code, one.names) == ("reaches-beyond", ("struct_ops",))
        # Without programs no guard would help.
        assert "guard" not in one.what + one.fix
        assert "delegate_maps" in one.fix


# ---- everything that says how far something reaches ----------------------------------------------


def one_of(kind: Kind, name: str, *, confined: bool | None) -> Delegation:
    """A container that shares nothing with the host, with just that delegated."""
    masks = {kind.option: 1 << ENUMS[kind.option].values[name]}
    fields = {key: getattr(ANYTHING, key) for key in Delegation.__slots__}
    said = warnings(masks, ENUMS, confined=confined, host_network=False, host_cgroup=False)
    shown = {kind.option: name}
    return Delegation(
        **fields | {"confined": confined, "masks": masks, "shown": shown, "warnings": tuple(said)}
    )


def by_page(kind: Kind, name: str, *, confined: bool | None) -> bool:
    text = page([one_of(kind, name, confined=confined)], ENUMS, host="h", time="t")
    (style,) = re.findall(rf'<td class="cell (\w+)" title="{name}: ', text)
    return bool(style == "host")


def by_inspect(kind: Kind, name: str, *, confined: bool | None) -> bool:
    found = as_json(one_of(kind, name, confined=confined))
    assert found["confined"] is confined
    return any(text.startswith(f"{REACHES_BEYOND}: {name}: ") for text in found["warnings"])


def by_doctor(kind: Kind, name: str, *, confined: bool | None) -> bool:
    with Process(os.getpid()) as process:
        found = programs.check(
            process, status(process), {kind.option: [name]}, confined=bool(confined)
        )
        return any(one.what == REACHES_BEYOND and one.why.startswith(f"{name}: ") for one in found)


def by_lint(kind: Kind, name: str, *, confined: bool | None) -> bool:
    masks = {kind.option: 1 << ENUMS[kind.option].values[name]}
    found = lint(masks, ENUMS, confined=bool(confined))
    return any(one.code == REACHES_BEYOND and name in one.reason for one in found)


@pytest.mark.parametrize("says", [by_page, by_inspect, by_doctor, by_lint])
@pytest.mark.parametrize("confined", [True, False, None])
def test_of_every_name_the_same_is_said(says: Say, *, confined: bool | None) -> None:
    wanted = {
        (kind.option, name): reach(kind.option, name, confined=bool(confined)) == HOST
        for kind, name in EVERY
    }
    assert {
        (kind.option, name): says(kind, name, confined=confined) for kind, name in EVERY
    } == wanted
    assert set(wanted.values()) == {True, False}


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linux/bpf.h with all of the names."""
    lines = []
    for kind in KINDS:
        enum = ENUMS[kind.option]
        enumerators = [
            f"{kind.prefix}{name.upper()} = {value}," for name, value in enum.values.items()
        ]
        guard = f"__MAX_{kind.enum.upper()} = {max(enum.values.values()) + 1}"
        lines += [f"enum {kind.enum} {{", *enumerators, guard, "};"]
    path = tmp_path_factory.mktemp("header") / "bpf.h"
    path.write_text("\n".join(lines))
    return path


def asking(header: Path, *names: tuple[Kind, str]) -> Iterator[str]:
    """The command line of a pod with a container for each of these names."""
    containers = [{"name": f"c{number}"} for number, _ in enumerate(names)]
    annotations = {
        f"io.bpffs.{kind.option}/c{number}": name for number, (kind, name) in enumerate(names)
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"annotations": annotations},
        "spec": {"hostUsers": False, "containers": containers},
    }
    path = header.parent / "pod.yaml"
    path.write_text(json.dumps(pod))
    yield from ("--file", str(path), "--header", str(header))


@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize("name", ["check", "explain"])
def test_check_and_explain_say_so_too(name: str, header: Path, *, confined: bool) -> None:
    rule = {"confined": confined} | {kind.option: ["any"] for kind in KINDS}
    policy = header.with_name("policy.yaml")
    policy.write_text(json.dumps({"version": 1, "rules": [{"name": "r", "allow": rule}]}))
    _, found = answer(name, "--policy", policy, *asking(header, *EVERY))
    for one in found["containers"]:
        # A confined rule gives nothing of what reaches the kernel.
        assert one["confined"] is (None if one["code"] else confined)
    far = [
        any(finding["lint"] == REACHES_BEYOND for finding in one["findings"])
        for one in found["containers"]
    ]
    wanted = [reach(kind.option, name, confined=confined) == HOST for kind, name in EVERY]
    assert far == wanted
    if confined:
        assert [one["code"] == REFUSED for one in found["containers"]] == wanted


def test_devices_too(tmp_path: Path) -> None:
    """Without being named no device is made of what reaches the kernel even if it is confined."""
    # A policy takes no name that neither this kernel nor the table has.
    names = [(kind, name) for kind, name in EVERY if name in TABLE[kind.option].values]
    profiles = {
        f"p{number}": {"delegate_cmds": ["map_create"]}
        | {kind.option: ["map_create", name][kind is not CMDS :]}
        for number, (kind, name) in enumerate(names)
    }
    policy = tmp_path / "policy.yaml"
    policy.write_text(json.dumps({"version": 1, "profiles": profiles, "rules": []}))
    done = command("cdi", "generate", "--output", "-", "--policy", policy)
    made = {one["name"] for one in json.loads(done.stdout)["devices"]}
    assert made == {
        f"p{number}"
        for number, (kind, name) in enumerate(names)
        # A map's bit that this kernel has no name for does nothing here.
        if reach(kind.option, name, confined=True) != HOST
        or (kind is MAPS and name not in kernel.enums(KINDS)[kind.option].values)
    }


def test_kernel_too() -> None:
    _, found = answer("kernel", "--table")
    for kind in KINDS:
        for row in found[kind.option]:
            assert row["reach"] == reach(kind.option, row["name"], confined=True)
