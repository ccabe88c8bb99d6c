"""check and explain of containers and pods whose names nobody has given yet, or no engine tells."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from oci_bpf_hook.errors import BAD_ANNOTATION, DONE, REFUSED
from tests.formats.test_names import manifest
from tests.support.command import answer, command

ASKS = {"io.bpffs.delegate_cmds": "map_create", "io.bpffs.delegate_maps": "hash"}
ALLOW = "allow: {confined: false, delegate_cmds: [map_create], delegate_maps: [hash]}"


@pytest.fixture
def given(tmp_path: Path) -> "Given":
    return Given(tmp_path)


class Given:
    """A file and a policy in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "x.yaml"
        self.policy = directory / "policy.yaml"

    def rules(self, *matches: str, engine: str | None = "cri-o") -> None:
        """A policy of rules called r0, r1, ..., of which each has one of these matches."""
        head = f"version: 1\n{f'engine: {engine}' if engine else ''}\nrules:\n"
        rules = (
            f"- {{name: r{number}, match: {match}, {ALLOW}}}\n"
            for number, match in enumerate(matches)
        )
        self.policy.write_text(head + "".join(rules))

    def check(self, text: str, *more: str, name: str = "check") -> tuple[int, dict[str, Any]]:
        self.file.write_text(text)
        code, found = answer(name, "--file", self.file, "--policy", self.policy, *more)
        return code, found["containers"][0]

    def said(self, text: str, *more: str) -> str:
        self.file.write_text(text)
        return command("check", "--file", self.file, "--policy", self.policy, *more).stdout


def levels(one: Mapping[str, Any], level: str) -> list[str]:
    return [found["text"] for found in one["findings"] if found["level"] == level]


KINDS = (
    *("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet", "Job"),
    "Rollout",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_templates_name_is_no_pods_name(given: Given, kind: str) -> None:
    text = manifest(kind, inner=ASKS)
    given.rules("{namespace: mon, pod: web}")
    code, one = given.check(text)
    assert (code, one["granted"], one["depends_on"]) == (REFUSED, None, None)
    (hint,) = (text for text in levels(one, "problem") if "to allow it" in text)
    assert 'match: {namespace: "mon", pod: "web-*", container: "probe"}' in hint
    (note,) = levels(one, "note")
    assert note.startswith(f"the names of the pods of the {kind} web can't be known yet; ")
    assert note.endswith('; a rule for all of them matches pod: "web-*"')
    given.rules('{namespace: mon, pod: "web-*"}')
    code, one = given.check(text)
    assert (code, one["rule"], one["depends_on"]) == (DONE, "r0", None)
    code, one = given.check(text, name="explain")
    assert (code, one["rule"], one["depends_on"]) == (DONE, "r0", None)
    assert one["attributes"]["pod"]["value"].startswith("web-")
    assert one["attributes"]["pod"]["assumed"]


def test_the_proposed_rule_grants(given: Given) -> None:
    """What a refusal says, pasted into the policy, grants whichever name the pod gets."""
    text = manifest("Deployment", inner=ASKS)
    given.rules("{namespace: other}")
    _, one = given.check(text)
    (problem,) = levels(one, "problem")
    rule = problem[problem.index("- {name") :].partition("]}}")[0] + "]}}"
    given.policy.write_text(f"version: 1\nengine: cri-o\nrules:\n{rule}\n")
    code, one = given.check(text)
    assert (code, one["depends_on"], one["rule"]) == (DONE, None, "NAME")


@pytest.mark.parametrize("name", ["check", "explain"])
def test_it_depends(given: Given, name: str) -> None:
    given.rules('{pod: "web-6*"}')
    code, one = given.check(manifest("Deployment", inner=ASKS), name=name)
    assert (code, one["depends_on"]) == (REFUSED, "pod")
    warning = levels(one, "warning")[0]
    assert warning.startswith("it depends on the names of the pods of the Deployment web, which")
    assert "it is refused; for web-6" in warning
    assert "it is granted by rule r0; a rule for all of them" in warning
    assert levels(one, "note") == []


def test_in_words(given: Given) -> None:
    given.rules('{pod: "web-6*"}')
    said = given.said(manifest("Deployment", inner=ASKS))
    assert (
        "Deployment web, container probe: refused for some of the names that the pod can get, "
        "exit code 12"
    ) in said
    # The place is that of the name.
    assert f"{given.file}:4:9: warning: it depends on " in said


def test_what_no_name_can_be_does_not_matter(given: Given) -> None:
    """No hash has these characters, and no number goes so far."""
    given.rules('{pod: "web-0*"}', '{pod: "web-*"}')
    code, one = given.check(manifest("Deployment", inner=ASKS))
    assert (code, one["rule"], one["depends_on"]) == (DONE, "r1", None)
    given.rules('{pod: "web-3"}', '{pod: "web-?"}')
    code, one = given.check(manifest("StatefulSet", inner=ASKS, replicas=3))
    assert (code, one["rule"], one["depends_on"]) == (DONE, "r1", None)
    code, one = given.check(manifest("StatefulSet", inner=ASKS, replicas=4))
    # Both rules grant the same.
    assert (code, one["depends_on"]) == (DONE, None)


def test_different_grants(given: Given) -> None:
    given.policy.write_text(
        "version: 1\nengine: cri-o\nrules:\n"
        f'- {{name: some, match: {{pod: "web-6*"}}, {ALLOW}}}\n'
        "- {name: rest, on_excess: trim, allow: {confined: false, delegate_cmds: [map_create]}}\n"
    )
    code, one = given.check(manifest("Deployment", inner=ASKS))
    assert (code, one["depends_on"], one["rule"]) == (DONE, "pod", "rest")
    (warning,) = (text for text in levels(one, "warning") if text.startswith("it depends"))
    assert "it is granted by rule rest" in warning
    assert "it is granted by rule some" in warning


def test_rules_about_others_do_not_matter(given: Given) -> None:
    """A rule for another namespace matches by no name of the pod."""
    given.rules('{pod: "web-6*", namespace: other}', '{pod: "web-*"}')
    code, one = given.check(manifest("Deployment", inner=ASKS))
    assert (code, one["rule"], one["depends_on"]) == (DONE, "r1", None)


def test_a_rule_that_denies_some(given: Given) -> None:
    given.policy.write_text(
        "version: 1\nengine: cri-o\nrules:\n"
        '- {name: denied, match: {pod: "web-1*"}, deny: not that one}\n'
        f"- {{name: yes, {ALLOW}}}\n".replace("yes", "others")
    )
    code, one = given.check(manifest("StatefulSet", inner=ASKS, replicas=2))
    assert (code, one["rule"], one["depends_on"]) == (REFUSED, "denied", "pod")


def test_the_command_line_knows_the_name(given: Given) -> None:
    given.rules('{pod: "web-6*"}')
    name = ("--attr", "pod=web-6d4cf56db6-x7k2p")
    code, one = given.check(manifest("Deployment", inner=ASKS), *name)
    assert (code, one["rule"], one["depends_on"]) == (DONE, "r0", None)
    assert levels(one, "note") == []


def test_notes_are_for_those_whom_they_concern(given: Given) -> None:
    """Not if no rule is about names, nor if nothing is asked for; and none is a refusal."""
    given.rules("{namespace: mon}")
    code, one = given.check(manifest("Deployment", inner=ASKS), "--strict")
    assert levels(one, "note") == []
    given.rules('{pod: "web-*"}')
    _, one = given.check(manifest("Deployment"))
    assert one["findings"] == []
    text = manifest("Deployment", inner=ASKS).replace(
        "      containers:", "      hostUsers: false\n      containers:"
    )
    text = text.replace("image: reg/agent:1", "securityContext: {capabilities: {add: [BPF]}}")
    code, one = given.check(text, "--strict")
    assert [found["level"] for found in one["findings"] if found["lint"] is None] == ["note"]
    assert code == (REFUSED if levels(one, "warning") else DONE)


def test_a_live_pod(given: Given) -> None:
    """It is decided for its name, and a rule for the next pod is proposed."""
    text = manifest("Pod", outer=ASKS).replace(
        "name: web", "name: web-x7k2p\n  generateName: web-", 1
    )
    given.rules("{pod: web-x7k2p}")
    code, one = given.check(text)
    assert (code, one["rule"]) == (DONE, "r0")
    given.rules("{pod: web-0}")
    code, one = given.check(text)
    assert code == REFUSED
    assert 'pod: "web-*"' in levels(one, "problem")[0]


# ---- podman, compose and Quadlet


def test_kube_play(given: Given) -> None:
    """podman tells the container's name, and neither the pod's nor the image's."""
    keyed = {"io.bpffs.profile/web-probe": "none"}
    given.rules("{container: web-probe}", engine="podman")
    code, one = given.check(manifest("Pod", outer=ASKS))
    assert (code, one["rule"]) == (DONE, "r0")
    given.rules("{pod: web}", "{image: '*'}", "{namespace: mon}", engine="podman")
    code, one = given.check(manifest("Pod", outer=ASKS))
    assert code == REFUSED
    (note,) = levels(one, "note")
    assert note.startswith("podman doesn't tell the hook the image and namespace and pod, ")
    assert 'match: {container: "web-probe"}' in levels(one, "problem")[0]
    assert given.check(manifest("Pod", outer=keyed))[0] != DONE


def test_a_deployment_of_podmans(given: Given) -> None:
    given.rules("{container: web-pod-probe}", engine="podman")
    code, one = given.check(manifest("Deployment", outer=ASKS))
    assert (code, one["depends_on"]) == (REFUSED, "container")
    given.rules('{container: "web-pod*"}', engine="podman")
    code, one = given.check(manifest("Deployment", outer=ASKS))
    assert (code, one["depends_on"]) == (DONE, None)
    keyed = {f"{key.partition('/')[0]}/web-pod-probe": text for key, text in ASKS.items()}
    code, one = given.check(manifest("Deployment", outer=keyed))
    assert (code, one["depends_on"]) == (DONE, "container")
    assert one["granted"]
    (warning,) = (text for text in levels(one, "warning") if text.startswith("it depends"))
    assert warning.startswith("it depends on the name of the container, which can't be known yet: ")
    assert "for web-pod-0-probe it asks for nothing" in warning
    assert warning.endswith("; podman before 4.4 numbers the pods of a Deployment")
    said = command("lint", "--engine", "podman", "--file", given.file).stdout
    assert "for web-pod-probe it asks for a delegation; for web-pod-0-probe it asks for n" in said


def test_the_pods_of_a_custom_resource(given: Given) -> None:
    """Nobody knows what the controller calls them, and so a rule about that may match."""
    data = {
        "apiVersion": "edge.example/v1",
        "kind": "Prober",
        "metadata": {"name": "edge", "namespace": "mon", "annotations": ASKS},
    }
    text = yaml.safe_dump(data)
    given.rules('{namespace: mon, pod: "edge-*"}')
    code, one = given.check(text)
    assert (code, one["rule"], one["depends_on"]) == (DONE, "r0", None)
    given.rules("{namespace: mon, container: agent}")
    code, one = given.check(text)
    assert (code, one["depends_on"]) == (REFUSED, "container")
    (warning,) = (text for text in levels(one, "warning") if text.startswith("it depends"))
    assert "for agent it is granted by rule r0" in warning
    given.rules("{namespace: other}")
    code, one = given.check(text)
    assert (code, one["depends_on"]) == (REFUSED, None)
    assert 'match: {namespace: "mon", pod: "edge-*"}' in levels(one, "problem")[0]


COMPOSE = """\
name: shop
services:
  web:
    image: reg/agent:1
    userns_mode: auto
    cap_add: [BPF]
    annotations: {io.bpffs.delegate_cmds: map_create, io.bpffs.delegate_maps: hash}
"""


def test_compose(given: Given) -> None:
    given.rules("{container: web}", engine="podman")
    code, one = given.check(COMPOSE)
    assert (code, one["depends_on"]) == (REFUSED, None)
    assert 'match: {container: "shop?web?*"}' in levels(one, "problem")[0]
    given.rules("{container: shop_web_1}", engine="podman")
    code, one = given.check(COMPOSE)
    assert (code, one["depends_on"]) == (REFUSED, "container")
    assert "container_name in the service" in levels(one, "warning")[0]
    given.rules('{container: "shop?web?1"}', engine="podman")
    assert given.check(COMPOSE)[0] == DONE
    # Docker tells nothing.
    named = COMPOSE.replace("userns_mode", "container_name: web\n    userns_mode")
    given.rules("{container: web}", engine="docker")
    code, one = given.check(named)
    assert (code, one["granted"]) == (REFUSED, None)
    keyed = named.replace("delegate_cmds:", "delegate_cmds/web:")
    assert given.check(keyed)[0] == BAD_ANNOTATION
    given.rules("{container: web}", engine="podman")
    assert given.check(keyed)[0] == DONE


def test_a_name_that_nobody_can_propose(given: Given) -> None:
    given.rules("{container: other}", engine="podman")
    _, one = given.check(COMPOSE.removeprefix("name: shop\n"))
    assert "match: {}" in levels(one, "problem")[0]
    assert "with a match that only this container meets" in levels(one, "problem")[0]


def test_quadlet(given: Given, tmp_path: Path) -> None:
    given.file = tmp_path / "web.container"
    unit = (
        "[Container]\nImage=reg/agent:1\nUserNS=auto\nAddCapability=BPF\n"
        "Annotation=io.bpffs.delegate_cmds=map_create io.bpffs.delegate_maps=hash\n"
    )
    given.rules("{container: systemd-web}", engine="podman")
    code, one = given.check(unit)
    assert (code, one["rule"]) == (DONE, "r0")
    for engine in ("podman", None):
        given.rules("{image: '*'}", engine=engine)
        code, one = given.check(unit)
        assert code == REFUSED
        assert len(levels(one, "note")) == 1
        assert 'match: {container: "systemd-web"}' in levels(one, "problem")[0]
    given.file = tmp_path / "web@.container"
    given.rules('{container: "systemd-web_*"}', engine="podman")
    code, one = given.check(unit)
    assert (code, one["depends_on"]) == (DONE, None)
    given.rules("{container: systemd-web_1}", engine="podman")
    code, one = given.check(unit)
    assert (code, one["depends_on"]) == (REFUSED, "container")


def test_a_manifest_without_a_namespace(given: Given) -> None:
    text = manifest("Pod", outer=ASKS).replace("  namespace: mon\n", "")
    given.rules("{namespace: mon}")
    code, one = given.check(text)
    assert code == REFUSED
    (note,) = levels(one, "note")
    assert note.startswith("the manifest names no namespace, ")
    code, one = given.check(text, "--attr", "namespace=mon")
    assert (code, levels(one, "note")) == (DONE, [])
    given.rules("{pod: web}")
    assert levels(given.check(text)[1], "note") == []
