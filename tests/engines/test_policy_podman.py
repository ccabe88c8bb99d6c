"""The policy end to end: what real podman starts and refuses, and what is on record of it."""

import json
import re
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.bpf.capabilities import programs_that_take
from oci_bpf_hook.bpf.type_facts import PERFMON
from oci_bpf_hook.errors import BAD_POLICY, REFUSED
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime
from tests.support.places import ROOT
from tests.support.podman import IMAGE, World
from tests.support.policy import EVERYTHING, UNCONFINED, audited, in_force, without_guard
from tests.support.scratch import io

AUDIT_SCHEMA = json.loads((ROOT / "schema" / "audit.schema.json").read_text())
MOUNTS = ["cat", "/proc/mounts"]

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES)


SOCKET = io(
    delegate_cmds="map_create:prog_load:btf_load",
    delegate_maps="hash",
    delegate_progs="socket_filter",
    delegate_attachs="cgroup_inet_ingress",
)


def granted(done: CompletedProcess) -> dict[str, Any]:
    """The audit trail's line for a container that ran with what it had asked for."""
    assert done.returncode == 0, done.stderr
    assert " /sys/fs/bpf bpf " in done.stdout
    line = audited()[-1]
    jsonschema.validate(line, AUDIT_SCHEMA)
    assert (line["outcome"], line["code"]) == ("granted", 0)
    return line


def refused(done: CompletedProcess, runtime: Runtime, code: int = REFUSED) -> dict[str, Any]:
    """The audit trail's line for a container that podman didn't start, and says why."""
    pattern = rf"\(exit code: {code}\)" if runtime == "crun" else rf"exit status {code}\b"
    assert re.search(pattern, done.stderr), done.stdout + done.stderr
    assert done.returncode != 0
    line = audited()[-1]
    jsonschema.validate(line, AUDIT_SCHEMA)
    assert (line["outcome"], line["code"], line["granted"]) == ("refused", code, None)
    return line


def test_the_built_in_policy_without_a_guard(world: World, runtime: Runtime) -> None:
    """No programs for anybody, and both ways out; maps are nothing for it to hold."""
    with in_force(None), without_guard():
        line = refused(world.run(runtime, annotations=SOCKET, command=MOUNTS), runtime)
        maps = io(delegate_cmds="map_create", delegate_maps="hash")
        done = world.run(runtime, annotations=maps, command=MOUNTS)
    assert line["rule"] == "own-namespaces"
    assert "oci-bpf-hook guard on" in line["problems"][0]
    assert "allow: {confined: false, " in line["problems"][0]
    assert granted(done)["confined"] is True


def test_what_the_built_in_rules_let_through(world: World, runtime: Runtime) -> None:
    with in_force(UNCONFINED):
        line = granted(world.run(runtime, annotations=SOCKET, command=MOUNTS))
    assert line["rule"] == "own-namespaces"
    assert line["requested"] == SOCKET
    assert line["granted"]["delegate_progs"] == "socket_filter"
    assert line["requester"]["user"] == 0
    assert line["requester"]["host_network"] is False


@pytest.mark.parametrize(
    "change",
    [
        io(delegate_cmds="any"),
        io(delegate_maps="0xffffffffffffffff"),
        io(delegate_maps="struct_ops"),
        *(
            io(delegate_progs=name)
            for name in (*programs_that_take(PERFMON), "syscall", "lirc_mode2")
        ),
    ],
    ids=lambda change: "-".join(change.values()),
)
def test_the_built_in_policy_refuses_what_reaches_beyond(
    world: World, runtime: Runtime, change: dict[str, str]
) -> None:
    with in_force(None):
        line = refused(world.run(runtime, annotations=SOCKET | change, command=MOUNTS), runtime)
    assert line["rule"] == "own-namespaces"
    assert any(text in line["problems"][0] for text in change.values())
    assert "- {name: NAME" in line["problems"][-1]


def test_the_rule_to_paste_is_for_this_container(world: World, runtime: Runtime) -> None:
    with in_force(None):
        done = world.run(
            runtime,
            *("--name", "asks-for-kprobe"),
            annotations=SOCKET | io(delegate_progs="kprobe"),
            command=MOUNTS,
        )
        line = refused(done, runtime)
    assert 'match: {container: "asks-for-kprobe"}' in line["problems"][-1]
    assert line["requester"]["container"] == "asks-for-kprobe"


def test_a_name_that_podman_made_up(world: World, runtime: Runtime) -> None:
    """The next container has another one, and the refusal says so."""
    with in_force(None):
        done = world.run(runtime, annotations=SOCKET | io(delegate_progs="kprobe"), command=MOUNTS)
        line = refused(done, runtime)
    name = line["requester"]["container"]
    assert re.fullmatch("[a-z]+_[a-z]+", name)
    assert f'if podman made up the name "{name}", it makes up another' in line["problems"][-1]


@pytest.mark.parametrize(
    ("arguments", "lists", "allowed"),
    [
        ([], io(delegate_progs="xdp", delegate_attachs="xdp"), True),
        (["--network", "host"], io(delegate_progs="xdp", delegate_attachs="xdp"), False),
        ([], io(delegate_progs="cgroup_skb", delegate_attachs="cgroup_inet_egress"), True),
        (
            ["--cgroupns", "host"],
            io(delegate_progs="cgroup_skb", delegate_attachs="cgroup_inet_egress"),
            False,
        ),
        (
            ["--volume", "/sys/fs/cgroup:/host:ro"],
            io(delegate_progs="cgroup_skb", delegate_attachs="cgroup_inet_egress"),
            False,
        ),
        (["--cgroupns", "host"], io(delegate_progs="xdp", delegate_attachs="xdp"), True),
        (["--network", "host"], {}, True),
    ],
)
def test_the_built_in_policy_looks_at_the_namespaces(
    world: World, runtime: Runtime, arguments: list[str], lists: dict[str, str], *, allowed: bool
) -> None:
    with in_force(UNCONFINED):
        done = world.run(runtime, *arguments, annotations=SOCKET | lists, command=MOUNTS)
        if allowed:
            granted(done)
        else:
            refused(done, runtime)


def test_an_image_s_own_annotations(world: World, runtime: Runtime) -> None:
    """podman before 4.6 gives a container the annotations of its image's manifest."""
    name = f"localhost/hostile-{runtime}:latest"
    directory = world.directory / f"hostile-{runtime}"
    directory.mkdir()
    (directory / "Containerfile").write_text(f"FROM {IMAGE}\nENV x=y\n")
    everything = io(
        delegate_cmds="any", delegate_maps="any", delegate_progs="any", delegate_attachs="any"
    )
    annotations = [
        part for key, text in everything.items() for part in ("--annotation", f"{key}={text}")
    ]
    world.podman(
        *("build", "--quiet", "--pull-never", "--format", "oci", "--isolation", "chroot"),
        *(*annotations, "--tag", name, str(directory)),
        runtime=runtime,
    )
    mapping = "0:100000:65536"
    command = [
        *("run", "--rm", "--pull", "never", "--uidmap", mapping, "--gidmap", mapping),
        *("--cgroup-parent", f"/{world.cgroup_parent}", name, *MOUNTS),
    ]
    # The policy in force allows everything, and an image has no say in it.
    line = refused(world.podman(*command, runtime=runtime, check=False), runtime)
    assert line["requested"] == everything
    assert line["rule"] is None
    assert line["problems"][0].startswith('the image itself says "io.bpffs.delegate_attachs", ')
    # The attack is real: where an image's word counts it works.
    with in_force(f"image_annotations: true\n{EVERYTHING}"):
        granted(world.podman(*command, runtime=runtime, check=False))


NAMESPACE = """\
version: 1
{engine}
rules:
- name: monitoring
  match: {{namespace: monitoring}}
  allow:
    confined: false
    delegate_cmds: [any]
    delegate_maps: [any]
    delegate_progs: [any]
    delegate_attachs: [any]
- name: nobody-else
  deny: ask the platform team
"""
FORGED = {
    "io.container.manager": "cri-o",
    "io.kubernetes.pod.namespace": "monitoring",
    "io.kubernetes.cri.sandbox-namespace": "monitoring",
}


def test_a_forged_namespace(world: World, runtime: Runtime) -> None:
    with in_force(NAMESPACE.format(engine="engine: podman")):
        line = refused(world.run(runtime, annotations=SOCKET | FORGED, command=MOUNTS), runtime)
    assert line["rule"] == "nobody-else"
    assert "ask the platform team" in line["problems"][0]
    # Where nobody has said which engine this is, the word of the requester is all there is.
    with in_force(NAMESPACE.format(engine="")):
        granted(world.run(runtime, annotations=SOCKET | FORGED, command=MOUNTS))


def test_trim(world: World, runtime: Runtime) -> None:
    text = (
        "version: 1\nrules:\n- name: some\n  on_excess: trim\n"
        "  allow: {delegate_cmds: [map_create], delegate_maps: [hash]}\n"
    )
    with in_force(text):
        done = world.run(runtime, annotations=SOCKET, command=MOUNTS)
        line = granted(done)
    assert line["granted"] == {"delegate_cmds": "map_create", "delegate_maps": "hash"}
    assert any("socket_filter" in item for item in line["trimmed"])
    assert "delegate_cmds=map_create,delegate_maps=hash 0 0" in done.stdout


def test_a_profile(world: World, runtime: Runtime) -> None:
    text = (
        "version: 1\nprofiles:\n  mine: {delegate_cmds: [map_create], delegate_maps: [array]}\n"
        "rules:\n- name: mine-only\n  allow: {profiles: [mine]}\n"
    )
    with in_force(text):
        line = granted(world.run(runtime, annotations=io(profile="mine"), command=MOUNTS))
        assert line["granted"] == {"delegate_cmds": "map_create", "delegate_maps": "array"}
        refused(
            world.run(
                runtime, annotations=io(profile="mine", delegate_maps="hash"), command=MOUNTS
            ),
            runtime,
        )


@pytest.mark.parametrize(
    ("profile", "allowed"),
    [
        ("socket-filter", True),
        ("xdp", True),
        ("tc", True),
        ("cgroup-network", True),
        ("sk-lookup", True),
        ("tracing", False),
        ("struct-ops-tcp", False),
    ],
)
def test_the_shipped_profiles_under_the_built_in_policy(
    world: World, runtime: Runtime, profile: str, *, allowed: bool
) -> None:
    with in_force(UNCONFINED):
        done = world.run(runtime, annotations=io(profile=profile), command=MOUNTS)
        if allowed:
            granted(done)
        else:
            refused(done, runtime)


def test_paths_and_modes(world: World, runtime: Runtime) -> None:
    text = (
        "version: 1\nrules:\n- name: here\n  allow:\n    delegate_cmds: [any]\n"
        "    paths: /run/bpf*\n    modes: ['0700']\n"
    )
    asked = io(delegate_cmds="map_create", path="/run/bpf-1", mode="0700")
    with in_force(text):
        done = world.run(runtime, annotations=asked, command=MOUNTS)
        assert done.returncode == 0, done.stderr
        line = refused(world.run(runtime, annotations=SOCKET, command=MOUNTS), runtime)
    assert any("/sys/fs/bpf" in problem for problem in line["problems"])
    assert any("1777" in problem for problem in line["problems"])


def test_a_rule_for_a_container_s_name(world: World, runtime: Runtime) -> None:
    text = (
        "version: 1\nengine: podman\nrules:\n- name: web\n  match: {container: 'web-*'}\n"
        "  allow: {delegate_cmds: [any]}\n"
    )
    asked = io(delegate_cmds="map_create")
    with in_force(text):
        line = granted(world.run(runtime, "--name", "web-1", annotations=asked, command=MOUNTS))
        assert line["requester"]["container"] == "web-1"
        refused(world.run(runtime, "--name", "db-1", annotations=asked, command=MOUNTS), runtime)


def test_a_broken_policy(world: World, runtime: Runtime) -> None:
    with in_force("version: 1\nrule: []\n"):
        before = len(audited())
        done = world.run(runtime, annotations=SOCKET, command=MOUNTS)
        assert done.returncode != 0
        assert re.search(rf"exit (code:|status) {BAD_POLICY}\b", done.stderr)
        assert len(audited()) == before
        # A container that doesn't ask is left alone.
        assert world.run(runtime, command=["true"]).returncode == 0


@pytest.mark.parametrize("required", ["true", "false"])
def test_a_grant_that_can_t_be_recorded(world: World, runtime: Runtime, required: str) -> None:
    text = (
        f"version: 1\naudit: {{to: /dev/full, required: {required}}}\n"
        "rules:\n- name: all\n  allow: {delegate_cmds: [any]}\n"
    )
    with in_force(text):
        done = world.run(runtime, annotations=io(delegate_cmds="map_create"), command=MOUNTS)
    if required == "false":
        assert done.returncode == 0, done.stderr
    else:
        assert re.search(rf"exit (code:|status) {REFUSED}\b", done.stderr)
