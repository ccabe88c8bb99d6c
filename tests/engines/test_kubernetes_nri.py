"""contrib/kubernetes/nri: manifests that Kubernetes' schemas take, and what they give the plugin.

The image is Debian's, which isn't pulled here; what is copied into it is looked at.
"""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from oci_bpf_hook.errors import DONE
from oci_bpf_hook.nri.connection import SOCKET
from oci_bpf_hook.paths import AUDIT_TO, BPFFS, RUN
from tests.support.command import command
from tests.support.kubernetes import FOLDER, RELEASES, RULES, admit, documents
from tests.support.nri import Plugin, Pod, held, mount_of, nothing_left, taken_away
from tests.support.places import ROOT
from tests.support.policy import UNCONFINED, in_force

PLUGIN, EXAMPLE = "nri/plugin.yaml", "nri/example-pod.yaml"


def daemons() -> dict[str, Any]:
    (found,) = documents(PLUGIN)
    return found


def container() -> dict[str, Any]:
    (found,) = daemons()["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", [PLUGIN, EXAMPLE])
def test_kubernetes_takes_them(name: str, release: str) -> None:
    for one in documents(name):
        kubernetes_validate.validate(one, release, strict=True)


def test_kustomization_names_what_is_here() -> None:
    (ours,) = documents("nri/kustomization.yaml")
    assert ours["resources"] == ["..", "plugin.yaml"]
    assert ours["images"][0]["name"] == container()["image"]
    there = {
        (one["apiVersion"], one["kind"], one["metadata"]["name"])
        for name in ("daemonset.yaml", "runtimeclass.yaml")
        for one in documents(name)
    }
    left_out = [yaml.safe_load(one["patch"]) for one in ours["patches"]]
    assert all(one["$patch"] == "delete" for one in left_out)
    assert {(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in left_out} == there


def test_they_fit_each_other() -> None:
    found = daemons()
    template = found["spec"]["template"]
    assert found["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert found["metadata"]["name"] == "oci-bpf-hook-nri"
    (node,) = documents("daemonset.yaml")
    assert template["spec"]["nodeSelector"] == node["spec"]["template"]["spec"]["nodeSelector"]
    assert found["metadata"]["namespace"] == node["metadata"]["namespace"]
    # A second plugin would only wait for the first one.
    assert found["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0
    (pod,) = documents(EXAMPLE)
    assert "runtimeClassName" not in pod["spec"]
    assert admit(pod, rules=RULES) == []


def test_what_the_plugin_finds_in_its_pod() -> None:
    places = {one["mountPath"] for one in container()["volumeMounts"]}
    wanted = {SOCKET, f"{BPFFS}/x", f"{RUN}/x", AUDIT_TO}
    assert {path.rpartition("/")[0] for path in wanted} == places
    volumes = daemons()["spec"]["template"]["spec"]["volumes"]
    assert {one["hostPath"]["path"] for one in volumes} == places


def test_the_plugin_takes_its_arguments() -> None:
    assert command(*container()["args"], "--help").returncode == DONE


def test_the_hook_takes_the_example() -> None:
    with in_force(UNCONFINED):
        done = command("check", "--file", FOLDER / EXAMPLE)
    assert done.returncode == DONE, done.stderr


def test_these_capabilities_are_enough() -> None:
    """For a plugin in a mount namespace of its own, as in a pod."""
    security = container()["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"]
    kept = ",".join(f"+{name.lower()}" for name in security["capabilities"]["add"])
    bounded = ("setpriv", "--bounding-set", f"-all,{kept}", "--no-new-privs", "--")
    alone = ("unshare", "--mount", "--propagation", "private", "--")
    with Pod() as pod, Plugin(prefix=(*alone, *bounded)) as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        answer = begun.call("CreateContainer", request)
        assert not answer.code, answer.message
        assert mount_of(answer)
        assert held() == [identity]
        taken_away(plugin, begun, identity)
    assert nothing_left()


def test_the_image_has_what_is_here() -> None:
    lines = (FOLDER / "nri" / "Containerfile").read_text().splitlines()
    copied = [line.split()[1:] for line in lines if line.startswith("COPY")]
    assert [source for source, _ in copied] == ["oci_bpf_hook", "schema"]
    assert all((ROOT / source).is_dir() for source, _ in copied)
    (place,) = {target.rpartition("/")[0] for _, target in copied}
    assert f"WORKDIR {place}" in lines
    # The schema is looked for beside the package, as in a checkout.
    assert all(re.fullmatch(rf"{place}/{source}", target) for source, target in copied)
