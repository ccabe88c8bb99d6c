"""The hook with what CRI-O, containerd and Docker really hand over: which rule decides, for whom.

Each captured state is a real container's here, but for its pid and its paths; its config.json is in
the bundle.  `policy test` and `check` have to come to what the hook comes to.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from oci_bpf_hook.errors import DONE, REFUSED
from oci_bpf_hook.oci import cdi
from tests.support.captured import STATES
from tests.support.command import answer, command
from tests.support.policy import UNCONFINED, audited, in_force, trusting
from tests.support.scratch import Scratch, assert_failed, io, run_hook

HOOK = {"args": ["oci-bpf-hook"], "path": "/x", "env": ["PATH=/usr/bin"], "timeout": 15}
ALLOW = "{delegate_cmds: [map_create, prog_load], delegate_maps: [hash], paths: [/sys/fs/bpf]}"
PROFILES = "profiles:\n  test: {delegate_cmds: [map_create], delegate_maps: [array]}\n"
SERVICE_ACCOUNT = "bpffs.io/service-account"
SPOOFED = ("namespace", "pod", "container", "image")


class Case(NamedTuple):
    """A captured state, the engine that it is of, and what the engine says of the container."""

    name: str
    engine: str
    stage: str
    image: str
    folder: Path = STATES

    def read(self, what: str) -> dict[str, Any]:
        """The captured `what`: state or config."""
        found: dict[str, Any] = json.loads(self.path(what).read_text())
        return found

    def path(self, what: str) -> Path:
        return self.folder / self.name / f"{self.stage}.{what}.json"

    @property
    def known(self) -> dict[str, str]:
        """What the engine says of it, by what a rule may match."""
        words = {"namespace": "monitoring", "pod": "web-0", "container": "probe"}
        return words | {"image": self.image}


CRIO = Case("cri-o-1.37-crun", "cri-o", "createRuntime", "localhost/bb:latest")
HOSTILE = CRIO._replace(stage="createRuntime.hostile-pod")
NRI = Case("containerd-2.4-nri-crun", "containerd", "createRuntime", "localhost/pause:latest")
# Captured with annotations beside the device.
IN_PODS = (CRIO, HOSTILE, NRI, NRI._replace(name="containerd-2.4-cdi-crun"))
DOCKER = Case("docker-2026.08-cdi-crun", "docker", "createRuntime", "")
# With no annotation at all.
PLAIN = DOCKER._replace(name="docker-26.1.5-cdi-runc-1.1.15", folder=STATES.parent / "devices")
by_pod = pytest.mark.parametrize("case", IN_PODS, ids=lambda case: f"{case.name}-{case.stage}")


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


def hook(
    container: Scratch, case: Case, *arguments: str, **also: str
) -> subprocess.CompletedProcess[str]:
    """Run the hook with the captured state, and the captured config.json in its bundle.

    Its pod has said `also`.
    """
    state, config = case.read("state"), case.read("config")
    assert config.get("annotations") == state.get("annotations")
    if also:
        config["annotations"] = state["annotations"] = state["annotations"] | also
    here = {"pid": container.init.pid, "bundle": str(container.bundle)}
    if config["root"]["path"].startswith("/"):
        config["root"]["path"] = str(container.root)
    else:
        # containerd's is below the bundle.
        link = container.bundle / config["root"]["path"]
        link.unlink(missing_ok=True)
        link.symlink_to(container.root)
    if "root" in state:
        here["root"] = config["root"]["path"]
    (container.bundle / "config.json").write_text(json.dumps(config))
    return run_hook(state | here, *arguments)


def policy(case: Case, match: str, *, deny: bool = False, allow: str = ALLOW) -> str:
    """A policy of the node's that says which engine this is."""
    what = "deny: not this one" if deny else f"allow: {allow}"
    head = f"version: 1\nengine: {case.engine}\n{PROFILES}"
    return trusting(f"{head}rules:\n- name: r\n  match: {match}\n  {what}\n")


def agree(case: Case, code: int, rule: str | None) -> None:
    """`policy test` and `check` say of the captured files what the hook said."""
    done = command("policy", "test", "--state", case.path("state"))
    assert done.returncode == code, done.stdout + done.stderr
    for what in ("state", "config"):
        found_code, found = answer("check", "--file", case.path(what))
        (one,) = found["containers"]
        assert (found_code, one["rule"]) == (code, rule), found
        if code == DONE:
            assert one["granted"] == audited()[-1]["granted"]


@by_pod
def test_a_rule_about_who_it_is(container: Scratch, case: Case) -> None:
    known = case.known
    match = (
        f"{{namespace: {known['namespace']}, pod: 'web-*', container: {known['container']}, "
        f"image: 'localhost/*', engine: {case.engine}}}"
    )
    with in_force(policy(case, match)):
        result = hook(container, case)
        assert (result.returncode, result.stderr) == (DONE, "")
        (mount,) = container.mounts()
        assert mount.endswith(",delegate_cmds=map_create:prog_load,delegate_maps=hash")
        line = audited()[-1]
        assert (line["outcome"], line["rule"]) == ("granted", "r")
        requester = line["requester"]
        assert {key: requester[key] for key in known} == known
        agree(case, DONE, "r")


@by_pod
@pytest.mark.parametrize("attribute", SPOOFED)
def test_a_rule_about_somebody_else(container: Scratch, case: Case, attribute: str) -> None:
    """SPOOF is what the hostile pod's author says of everything."""
    with in_force(policy(case, f"{{{attribute}: [other, SPOOF, 'SPOOF*']}}")):
        result = hook(container, case)
        assert_failed(result, REFUSED, "no rule of the policy is for", container=container)
        assert audited()[-1]["requester"][attribute] == case.known[attribute]
        agree(case, REFUSED, None)


@by_pod
@pytest.mark.parametrize("attribute", SPOOFED)
def test_a_rule_that_denies(container: Scratch, case: Case, attribute: str) -> None:
    """Nobody is left out of it by what they say of themselves."""
    with in_force(policy(case, f"{{{attribute}: '{case.known[attribute]}'}}", deny=True)):
        result = hook(container, case)
        assert_failed(result, REFUSED, "denies it: not this one", container=container)
        agree(case, REFUSED, "r")


@by_pod
def test_a_rule_about_a_service_account(container: Scratch, case: Case) -> None:
    """By the annotation that contrib/kubernetes/service-account.yaml vouches for."""
    match = "{namespace: monitoring, annotations: {bpffs.io/service-account: bpf-agent}}"
    with in_force(policy(case, match)):
        for said in ({}, {SERVICE_ACCOUNT: "default"}):
            result = hook(container, case, **said)
            assert_failed(result, REFUSED, "no rule of the policy is for", container=container)
        result = hook(container, case, **{SERVICE_ACCOUNT: "bpf-agent"})
        assert (result.returncode, result.stderr) == (DONE, "")
        assert audited()[-1]["rule"] == "r"


def test_what_a_hostile_pod_says_is_none_of_the_engine_s() -> None:
    """What it tried to set is there where CRI-O sets nothing itself, and there alone."""
    state, plain = HOSTILE.read("state"), CRIO.read("state")
    spoofed = {key for key, value in state["annotations"].items() if "SPOOF" in value}
    assert spoofed == {
        f"io.kubernetes.cri-o.{name}" for name in ("ContainerName", "Foo", "Namespace")
    }
    assert spoofed.isdisjoint(plain["annotations"])


@pytest.mark.parametrize(
    "case", [*IN_PODS, DOCKER, PLAIN], ids=lambda case: f"{case.name}-{case.stage}"
)
def test_a_device(container: Scratch, case: Case) -> None:
    """With the arguments that `cdi generate` gives the engine, and none of the annotations.

    Which engine that is, they alone say.
    """
    spec = cdi.spec(["test"], HOOK, engine=case.engine, path="/sys/fs/bpf")
    arguments = spec["devices"][0]["containerEdits"]["hooks"][0]["args"][1:]
    match = "{cdi: test, engine: " + case.engine + ", host_network: false}"
    text = policy(case, match, allow="{profiles: [test]}")
    text = text.replace(f"engine: {case.engine}\n", "", 1)
    with in_force(text):
        # It has the host's network, and no rule is left then.
        result = hook(container, case, *arguments)
        assert_failed(result, REFUSED, "no rule of the policy is for", container=container)
    with in_force(text.replace("host_network: false", "user: root")):
        result = hook(container, case, *arguments)
        assert (result.returncode, result.stderr) == (DONE, "")
    (mount,) = container.mounts()
    assert mount.endswith(",delegate_cmds=map_create,delegate_maps=array")
    assert audited()[-1]["rule"] == "r"


def test_the_device_that_docker_had(container: Scratch) -> None:
    """With the arguments that were in its config.json, and the profiles that were in force."""
    (ran,) = PLAIN.read("config")["hooks"]["createRuntime"]
    with in_force(UNCONFINED):
        result = hook(container, PLAIN, *ran["args"][1:])
        assert (result.returncode, result.stderr) == (DONE, "")
    (mount,) = container.mounts()
    assert ",delegate_progs=socket_filter:xdp," in mount
    assert audited()[-1]["rule"] == "devices"


def test_docker_says_nothing_of_who_it_is(container: Scratch) -> None:
    """An annotation is a request there, and no more."""
    with in_force(policy(DOCKER, "{namespace: monitoring}")):
        result = hook(container, DOCKER)
        assert_failed(result, REFUSED, "no rule of the policy is for", container=container)
        agree(DOCKER, REFUSED, None)
    with in_force(policy(DOCKER, "{engine: docker}")):
        assert hook(container, DOCKER).returncode == DONE
        assert io(delegate_cmds="map_create") == DOCKER.read("state")["annotations"]
        agree(DOCKER, DONE, "r")
