"""The shipped profiles: each loads what it is for, and none of its bits can be spared.

A real libbpf in real containers: with a whole profile, every object of it is loaded as the host's
root loads it without a token.  With one bit less, some object isn't loaded, or not as well.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from oci_bpf_hook.advise.advice import DEFAULTS, advise
from oci_bpf_hook.advise.objects import read
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.formats.advised import render
from oci_bpf_hook.kernel import enums as kernel
from tests.corpus.check import KERNEL
from tests.support.bpf import compiled
from tests.support.consumer import Consumer, Report, missing
from tests.support.docs import PAGES
from tests.support.places import ROOT
from tests.support.podman import World
from tests.support.scratch import LAUNCHER

HOOK_JSON = ROOT / "hooks.d" / "oci-bpf-hook.json"
POLICY = ROOT / "oci_bpf_hook" / "policy.yaml"
PROFILES: dict[str, dict[str, Any]] = yaml.safe_load(POLICY.read_text())["profiles"]
OPTIONS = ("delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs")


class Use(NamedTuple):
    """What a profile is for: the objects of tests/consumer, and the capabilities they take."""

    objects: tuple[str, ...]
    capabilities: tuple[str, ...]


USES = {
    "socket-filter": Use(("socket_filter",), ("BPF",)),
    "xdp": Use(("xdp_firewall", "xdp_redirect", "xdp_frags"), ("BPF", "NET_ADMIN")),
    "tc": Use(("tc", "tcx"), ("BPF", "NET_ADMIN")),
    "cgroup-network": Use(
        ("cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt"), ("BPF", "NET_ADMIN")
    ),
    # The program itself takes CAP_BPF alone; a sockmap takes the other.
    "sk-lookup": Use(("sk_lookup",), ("BPF", "NET_ADMIN")),
    "tracing": Use(("raw_tp", "tp_btf", "iter"), ("BPF", "PERFMON")),
    "struct-ops-tcp": Use(("tcp_loss", "tcp_rate"), ("BPF", "PERFMON")),
}

# Without BTF libbpf loads most objects all the same.  Not these: local storage and struct_ops
# have types that the kernel takes from the object's BTF.
WITHOUT_BTF_REFUSED = {"cgroup_sockopt", "tp_btf", "tcp_loss", "tcp_rate"}
# libbpf tries bpf_probe_read_kernel() in a tracepoint program.  If it may not, it puts the older
# bpf_probe_read() in its place, which some architectures don't have and which reads user memory
# where the address is one of user space.
PROBE_READ, PROBE_READ_STR = 4, 45
PROBE_READ_KERNEL, PROBE_READ_KERNEL_STR = 113, 115
# libbpf <= 1.7 first loads a socket filter, else a tracepoint program, whatever the object has, and
# gives up if it can't.
TRIVIAL = "Couldn't load trivial BPF program"


class Case(NamedTuple):
    """A profile as it is, or without one bit of one of its lists, or without a capability."""

    profile: str
    less: str = ""  # One of OPTIONS, or "capabilities".
    bit: str = ""

    def annotations(self) -> dict[str, str]:
        lists = {option: list(PROFILES[self.profile][option]) for option in OPTIONS}
        if self.less in OPTIONS:
            lists[self.less].remove(self.bit)
        return {f"io.bpffs.{option}": ":".join(bits) for option, bits in lists.items() if bits}

    def capabilities(self) -> list[str]:
        dropped = self.bit if self.less == "capabilities" else ""
        return [name for name in USES[self.profile].capabilities if name != dropped]

    def run(self, consumer: Consumer) -> dict[str, Report]:
        return consumer.in_a_container(
            USES[self.profile].objects,
            self.annotations(),
            capabilities=self.capabilities(),
            attach=not self.less,
        )


SHIPPED = [name for name in USES if name in PROFILES]  # That none is missing, a test says.
WHOLE = [Case(profile) for profile in SHIPPED]
LESS = [
    Case(profile, option, bit)
    for profile in SHIPPED
    for option in OPTIONS
    for bit in PROFILES[profile][option]
]
UNABLE = [
    Case(profile, "capabilities", name)
    for profile in SHIPPED
    for name in USES[profile].capabilities
]
Loads = Callable[[Case], dict[str, Report]]


def name_of(case: Case) -> str:
    return "-".join(filter(None, case))


@pytest.fixture(scope="module")
def consumer() -> Iterator[Consumer]:
    if lacks := missing():
        pytest.skip(f"this host lacks {', '.join(lacks)}; `make test` installs what it can")
    with World() as world:
        world.install_hook(LAUNCHER, HOOK_JSON)
        yield Consumer(world, (name for use in USES.values() for name in use.objects))


@pytest.fixture(scope="module")
def host(consumer: Consumer) -> dict[str, Report]:
    """What the host's root can load, and how, without any token."""
    reports = consumer.on_the_host(name for use in USES.values() for name in use.objects)
    refused = {name: report["log"] for name, report in reports.items() if report["result"] != "ok"}
    assert not refused, "this kernel can't load these at all"
    return reports


@pytest.fixture(scope="module")
def loads(consumer: Consumer, request: pytest.FixtureRequest) -> Iterator[Loads]:
    """The container of a case, some of which run at once: there are more than a hundred."""
    chosen = (item for item in request.session.items if item.path == Path(__file__))
    cases = (item.callspec.params.get("case") for item in chosen if hasattr(item, "callspec"))
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        running = {case: pool.submit(case.run, consumer) for case in cases if case}
        yield lambda case: running[case].result()
        pool.shutdown(cancel_futures=True)


def loaded(report: Report) -> dict[str, dict[str, Any]]:
    """The kernel's objects that came of an object file, by their kind and name."""
    kinds = ("maps", "programs")
    return {f"{kind} {name}": what for kind in kinds for name, what in report[kind].items()}


def test_every_profile_is_shipped() -> None:
    assert USES.keys() <= PROFILES.keys()


@pytest.mark.parametrize("profile", SHIPPED)
def test_lists(host: dict[str, Report], profile: str) -> None:
    """What its objects have and what libbpf's probes take, by name, and nothing else."""
    enums = kernel.enums(KINDS)
    reports = [host[name] for name in USES[profile].objects]

    def names(option: str, kind: str, key: str) -> set[str]:
        values = (what[key] for report in reports for what in report[kind].values())
        return {enums[option].names[value] for value in values}

    # The socket filter, with attach type 0, is libbpf's first probe and the one for global data.
    probes = {"socket_filter"} | ({"tracepoint"} if profile == "tracing" else set())
    assert {option: set(PROFILES[profile][option]) for option in OPTIONS} == {
        "delegate_cmds": {"map_create", "prog_load", "btf_load"},
        "delegate_maps": names("delegate_maps", "maps", "type"),
        "delegate_progs": names("delegate_progs", "programs", "type") | probes,
        "delegate_attachs": names("delegate_attachs", "programs", "attach")
        | {"cgroup_inet_ingress"},
    }


@pytest.mark.parametrize("profile", SHIPPED)
def test_advice(profile: str) -> None:
    """The profile, and its example in the docs, are what is advised for its objects."""
    objects = [read(compiled(name), name) for name in USES[profile].objects]
    # A profile is for every architecture, also for those on which libbpf's probe of helpers that
    # read memory can't be left out.
    lists = advise(objects, DEFAULTS.on("s390x"), KERNEL).lists(KERNEL.names)
    assert {option: PROFILES[profile][option] for option in OPTIONS} == {
        option: lists[option] for option in OPTIONS
    }
    capabilities = [name.upper() for name in lists["capabilities"]]
    assert set(capabilities) == set(USES[profile].capabilities)
    words = f"--cap-add={','.join(capabilities)} --annotation=io.bpffs.profile={profile}"
    lines = PAGES["docs/policy.md"].splitlines()
    (row,) = (line for line in lines if line.startswith(f"| {profile} |"))
    assert row.endswith(f"| `{words}` |")


def test_the_form_for_podman(consumer: Consumer, host: dict[str, Report]) -> None:
    """What `advise --format annotations` prints is enough, as it stands."""
    name = "xdp_redirect"
    needs = advise([read(compiled(name), name)], DEFAULTS, KERNEL)
    options = [
        line.partition("=") for line in render("annotations", needs, KERNEL.names, "").split()
    ]
    annotations = [text.partition("=") for key, _, text in options if key == "--annotation"]
    reports = consumer.in_a_container(
        [name],
        {key: text for key, _, text in annotations},
        capabilities=[text for key, _, text in options if key == "--cap-add"],
    )
    assert reports[name]["result"] == "ok", reports[name]["log"]
    assert loaded(reports[name]) == loaded(host[name])


@pytest.mark.parametrize("case", WHOLE, ids=name_of)
def test_profile(loads: Loads, host: dict[str, Report], case: Case) -> None:
    """Every object is loaded, and everything in it as on the host.  What can be attached, is."""
    reports = loads(case)
    for name, report in reports.items():
        assert report["result"] == "ok", (name, report["log"])
        assert report["token"]
        assert loaded(report) == loaded(host[name])
        assert set(report["attached"].values()) <= {"ok"}, (name, report["attached"])
    # A congestion control would be one for the whole kernel.
    anything = any(report["attached"] for report in reports.values())
    assert anything == (case.profile != "struct-ops-tcp")


def test_all_profiles_together(consumer: Consumer, host: dict[str, Report]) -> None:
    """A union of profiles does what each does, although one's bits change libbpf's mind.

    With cgroup_sock and its attach type libbpf finds that the kernel has attach types, and loads
    SEC("xdp") with xdp; without them, as in the profile `xdp` alone, with 0.
    """
    annotations = {
        f"io.bpffs.{option}": ":".join({bit for name in USES for bit in PROFILES[name][option]})
        for option in OPTIONS
    }
    capabilities = sorted({name for use in USES.values() for name in use.capabilities})
    reports = consumer.in_a_container(host, annotations, capabilities=capabilities)
    assert {name: report["result"] for name, report in reports.items()} == dict.fromkeys(host, "ok")
    assert all(loaded(report) == loaded(host[name]) for name, report in reports.items())


@pytest.mark.parametrize("case", LESS, ids=name_of)
def test_without_one_bit(loads: Loads, host: dict[str, Report], case: Case) -> None:
    reports = loads(case)
    refused = {name for name, report in reports.items() if report["result"] != "ok"}
    worse = {
        name: differences(loaded(host[name]), loaded(report))
        for name, report in reports.items()
        if name not in refused and loaded(report) != loaded(host[name])
    }
    if case.bit == "btf_load":
        # Degraded: nothing has BTF, and with that no types for bpftool and others to show.
        assert refused == WITHOUT_BTF_REFUSED & reports.keys()
        assert worse.keys() == reports.keys() - refused
        assert all(pair == {"btf": (True, False)} for what in worse.values() for pair in what)
    elif (case.profile, case.bit) == ("tracing", "tracepoint"):
        # Degraded: the older helper.
        assert not refused
        assert worse.keys() == {"raw_tp"}
        ((before, after),) = (pair["helpers"] for pair in worse["raw_tp"])
        assert set(before) - set(after) == {PROBE_READ_KERNEL, PROBE_READ_KERNEL_STR}
        assert set(after) - set(before) == {PROBE_READ, PROBE_READ_STR}
    else:
        # EPERM of the map or program itself.  EINVAL where libbpf goes on without something: a
        # program without its global data, a local storage tried again without its BTF.
        assert refused
        assert {reports[name]["result"] for name in refused} <= {"EPERM", "EINVAL"}
        assert not worse
    if for_probes_alone(case):
        assert refused == reports.keys()
        assert all(TRIVIAL in " ".join(report["log"]) for report in reports.values())


def differences(
    before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]
) -> list[dict[str, tuple[Any, Any]]]:
    """What differs in each of the kernel's objects that differ; the two have the same ones."""
    assert before.keys() == after.keys()
    pairs = [
        {key: (value, after[name][key]) for key, value in what.items() if value != after[name][key]}
        for name, what in before.items()
    ]
    return [pair for pair in pairs if pair]


def for_probes_alone(case: Case) -> bool:
    """Whether no program of the profile has this type, and only libbpf's first probe needs it.

    In `tracing` a tracepoint program would do for that one, and global data takes the socket
    filter; elsewhere it takes both.
    """
    if case.bit == "socket_filter":
        return case.profile not in ("socket-filter", "tracing")
    return (case.profile, case.bit) == ("sk-lookup", "cgroup_inet_ingress")


@pytest.mark.parametrize("case", UNABLE, ids=name_of)
def test_without_one_capability(loads: Loads, case: Case) -> None:
    """The capabilities that go with a profile, in the container's user namespace."""
    results = {report["result"] for report in loads(case).values()}
    assert "EPERM" in results
