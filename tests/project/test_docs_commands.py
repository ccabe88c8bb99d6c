"""Every block of the README and of docs/ is run, or looked at, as it stands there.

The blocks of the page for newcomers are test_newcomers'. The others' commands are run on one host
with the hook, a policy that allows everything, a container that runs and a few files.  The few
that take more than that are run by another test, which is named here.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from oci_bpf_hook.errors import FOUND, UNKNOWN_NAME
from oci_bpf_hook.kernel.enums import VMLINUX
from tests.cli.commands.test_convert import INCUS
from tests.project.test_newcomers import IMAGE, STARTING, at_srv, podman, run_lines
from tests.support import policy, shim
from tests.support.bpf import compile_text, compiled
from tests.support.bundle import Bundle
from tests.support.consumer import Consumer
from tests.support.docs import BLOCKS, Block, has_test
from tests.support.packages import PACKAGE, fresh, run
from tests.support.places import ROOT
from tests.support.podman import World

# The commands that another test runs, and which.
ELSEWHERE = {
    "make demo": "demo::it_shows_what_it_says",
    "make guard": "install/steps::pip_install",
    "make guard shim": "packages::they_build_the_guard_and_the_shim_that_they_hold",
    (
        "podman run --userns=auto --annotation io.bpffs.profile=socket-filter \\\n"
        "    --annotation io.bpffs.shim=true registry.example/bpf-agent"
    ): "shim_podman::an_annotation",
    "make guard install": "newcomers::podman",
    "make install": "install/steps::install_run_uninstall",
    "make uninstall": "install/steps::install_run_uninstall",
    "oci-bpf-hook guard on": "newcomers::podman",
    "systemctl enable --now oci-bpf-hook-guard.service": (
        "systemd_guard::these_capabilities_are_enough"
    ),
    "systemctl enable --now oci-bpf-hook-broker.socket": "newcomers::podman_without_root",
    "make deb && apt-get install ./build/oci-bpf-hook_*_all.deb": (
        "packages::dpkg_installs_upgrades_removes_and_purges"
    ),
    "make rpm && dnf install ./build/oci-bpf-hook-*.noarch.rpm": (
        "packages::rpm_installs_upgrades_and_erases"
    ),
    "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) make deb rpm": (
        "packages::the_same_source_makes_the_same_package"
    ),
    "podman build -f contrib/kubernetes/Containerfile -t registry.example/oci-bpf-hook .": (
        "kubernetes::a_node_that_is_visited_twice_and_left"
    ),
    "kubectl label node NODE bpffs.io/hook=true": "kubernetes::they_fit_each_other",
    "kubectl apply -k contrib/kubernetes": "kubernetes::kubernetes_takes_them",
    "kubectl -n oci-bpf-hook rollout status daemonset/oci-bpf-hook": (
        "kubernetes::they_fit_each_other"
    ),
    "podman build -f contrib/kubernetes/nri/Containerfile -t registry.example/oci-bpf-hook-nri .": (
        "kubernetes_nri::the_image_has_what_is_here"
    ),
    "kubectl apply -k contrib/kubernetes/nri": "kubernetes_nri::kubernetes_takes_them",
    "kubectl -n oci-bpf-hook rollout status daemonset/oci-bpf-hook-nri": (
        "kubernetes_nri::they_fit_each_other"
    ),
    "kubectl apply -k contrib/kubernetes/uninstall": "kubernetes::kustomizations_name_what_is_here",
    "kubectl delete -k contrib/kubernetes": "kubernetes::kustomizations_name_what_is_here",
    "make bench": "bench::every_candidate_was_measured",
    "make pictures": "screenshots::they_can_be_made_anew",
    ".venv/bin/python -m tests.machines trixie": "machines::case",
    # What runs this test.
    "make test": "docs_commands::every_block_is_run_or_looked_at",
}
# What they end with, where that isn't 0; doctor has something to say of most hosts.
EXITS = {
    "oci-bpf-hook check --annotation io.bpffs.delegate_cmds=prog_lod": {UNKNOWN_NAME},
    # As diff(1), where there is a difference.
    "oci-bpf-hook record --diff run.json advised.json": {1},
    "oci-bpf-hook doctor": {0, FOUND},
    "oci-bpf-hook doctor --container bpf-agent": {0, FOUND},
    "oci-bpf-hook doctor --container bpf-agent --object prog.bpf.o": {0, FOUND},
}
# What goes on until somebody has seen enough.
ENDLESS = {"oci-bpf-hook inspect --watch"}
PROFILES = yaml.safe_load(policy.UNCONFINED)["profiles"]
KINDS = ("delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs")
ANYTHING = {"confined": False, "record": True} | {kind: ["any"] for kind in KINDS}
POLICY = {
    "version": 1,
    "profiles": PROFILES,
    "rules": [
        {"name": "devices", "match": {"cdi": "*"}, "allow": ANYTHING},
        {"name": "everything", "allow": ANYTHING},
    ],
}
PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1);
    __type(key, int);
    __type(value, int);
} counts SEC(".maps");
SEC("xdp") int pass(struct xdp_md *context) { return XDP_PASS; }
SEC("socket") int my_program(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


class Place(NamedTuple):
    """Where the commands are run, and podman's world there."""

    directory: Path
    world: World


def ours(language: str) -> list[Block]:
    return [one for one in BLOCKS if one.language == language and one.page != STARTING]


def alone(command: str) -> str:
    """The command without its comment."""
    return re.sub(r"\s+# .*", "", command)


def to_run(block: Block) -> list[str]:
    """The commands of the block that no other test runs."""
    return [one for one in block.commands if one not in ELSEWHERE]


# A policy as a whole.
(WHOLE,) = (one for one in ours("yaml") if "\nprofiles:" in one.text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with fresh(tmp_path_factory.mktemp("host")):
        run("/usr/bin/python3", "-B", "-m", "oci_bpf_hook", "install")
        shim.build(PACKAGE / "shim")
        policy.write(json.dumps(POLICY))
        for name in ("/etc/subuid", "/etc/subgid"):
            with Path(name).open("a") as file:
                file.write("containers:2147483647:2147483648\n")
        with Path("/etc/group").open("a") as file:
            file.write("netdev:x:4242:\n")
        run("oci-bpf-hook", "seccomp", "--output", "/etc/containers/seccomp.json")
        with podman() as world:
            # What is configured is configured where a drop-in is looked for.
            conf = Path(world.environment["CONTAINERS_CONF"])
            Path("/etc/containers/containers.conf").write_text(conf.read_text())
            world.environment["CONTAINERS_CONF"] = ""
            directory = world.directory / "work"
            _fill(directory, Consumer(world, ["socket_filter"]).loading(["socket_filter"]))
            _start(world)
            with Bundle(probe=world.probe, command=["true"]) as bundle, at_srv(bundle.directory):
                (bundle.directory / "config.json").write_text(json.dumps(bundle.config))
                yield Place(directory, world)


def _fill(directory: Path, loads: Sequence[str]) -> None:
    """Make what the blocks name: objects, an agent that runs `loads`, manifests and the like."""
    directory.mkdir()
    (directory / "contrib").symlink_to(ROOT / "contrib")
    program = compile_text(PROGRAM)
    for name in ("prog.bpf.o", "a.o", "b.o"):
        (directory / name).write_bytes(program)
    (directory / "ops.bpf.o").write_bytes(compiled("tcp_loss"))
    (directory / "vmlinux.btf").write_bytes(Path(VMLINUX).read_bytes())
    (directory / "agent").write_bytes(Path("/bin/true").read_bytes() + program)
    shutil.copy(ROOT / "contrib" / "kubernetes" / "example-pod.yaml", directory / "pod.yaml")
    (directory / "instance.yaml").write_text(INCUS)
    (directory / "policy.yaml").write_text(WHOLE.text)
    agent = directory / "my-agent"
    agent.write_text(f"#!/bin/sh\nexec {shlex.join(loads)}\n")
    agent.chmod(0o755)
    made = (
        "oci-bpf-hook record --save run.json -- ./my-agent",
        "oci-bpf-hook advise --format json prog.bpf.o > advised.json",
    )
    for command in made:
        done = _shell(command, directory)
        assert done.returncode == 0, done.stderr


def _start(world: World) -> None:
    """Have a container run."""
    how = ("--userns=auto", "--cap-add=BPF", "--annotation=io.bpffs.profile=socket-filter")
    loop = ("sh", "-c", "trap exit TERM; sleep 1000 & wait")
    world.podman("run", "--detach", "--name=bpf-agent", *how, IMAGE, *loop)


def _shell(
    command: str, directory: Path, world: World | None = None
) -> subprocess.CompletedProcess[str]:
    return run_lines(f"cd {directory}\n{command}", world)


@pytest.mark.parametrize("block", [one for one in ours("sh") if to_run(one)], ids=str)
def test_commands(place: Place, block: Block) -> None:
    assignments = ""
    for command in to_run(block):
        if re.match(r"\w+=", command):
            assignments += f"{command}\n"
        elif command in ENDLESS:
            _watch(command)
        else:
            done = _shell(f"{assignments}{command}", place.directory, place.world)
            expected = EXITS.get(alone(command), {0})
            assert done.returncode in expected, f"{command}\n{done.stdout}{done.stderr}"


def _watch(command: str) -> None:
    """Run it until it has shown something."""
    with subprocess.Popen(command.split(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("block", ours("yaml"), ids=str)
def test_policies(place: Place, block: Block) -> None:
    """Each is a policy without a mistake, or rules for one."""
    text = block.text
    if not text.startswith("version: 1\n"):
        text = yaml.safe_dump({"version": 1, "engine": "cri-o", "profiles": PROFILES}) + text
    elif "\nprofiles:" not in text:
        text += yaml.safe_dump({"profiles": PROFILES})
    path = place.directory / "shown.yaml"
    path.write_text(text)
    done = _shell("oci-bpf-hook policy check shown.yaml", place.directory)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- that none is forgotten --------------------------------------------------------------------


def test_every_block_is_run_or_looked_at() -> None:
    """By its language: commands, policies, diagrams (test_docs), and text that does nothing."""
    assert {block.language for block in BLOCKS} == {"sh", "yaml", "mermaid", "text"}
    for block in BLOCKS:
        if block.language == "text":
            assert not re.search(r"(?m)^(\$ |# |oci-bpf-hook |podman |make )", block.text), block
        assert block.page != STARTING or block.language == "sh", block


def test_what_others_run_is_shown_and_run() -> None:
    shown = {alone(command) for block in BLOCKS for command in block.commands}
    assert {*ELSEWHERE, *EXITS, *ENDLESS} - shown == set()
    assert [name for name in ELSEWHERE.values() if not has_test(name)] == []
