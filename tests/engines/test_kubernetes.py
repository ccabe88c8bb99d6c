"""contrib/kubernetes: manifests that Kubernetes' own schemas take, and a node for real."""

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from oci_bpf_hook.errors import DONE
from oci_bpf_hook.paths import PINS
from tests.support.command import command
from tests.support.kubernetes import (
    ADMISSION,
    ASK,
    FOLDER,
    RELEASES,
    SERVICE_ACCOUNT,
    admit,
    documents,
)
from tests.support.packages import (
    HOOK_JSON,
    LIBEXEC,
    fresh,
    podman_as_installed,
    run,
    source_of,
    written,
)
from tests.support.pins import bpffs, pin
from tests.support.places import ROOT
from tests.support.podman import World
from tests.support.policy import UNCONFINED, in_force

EXAMPLE = "example-pod.yaml"
MANIFESTS = (
    *("namespace.yaml", "daemonset.yaml", "runtimeclass.yaml", ADMISSION, SERVICE_ACCOUNT),
    EXAMPLE,
)
IMAGE = "registry.example/oci-bpf-hook"


def document(kind: str) -> dict[str, Any]:
    every = (one for name in MANIFESTS for one in documents(name))
    (found,) = (one for one in every if one["kind"] == kind)
    return found


# ---- manifests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_them(name: str, release: str) -> None:
    for one in documents(name):
        kubernetes_validate.validate(one, release, strict=True)


def test_the_validator_does_refuse() -> None:
    pod = document("Pod")
    pod["spec"]["hostUser"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, RELEASES[1], strict=True)


def test_kustomizations_name_what_is_here() -> None:
    (ours,) = documents("kustomization.yaml")
    assert ours["resources"] == [name for name in MANIFESTS if name != EXAMPLE]
    (theirs,) = documents("uninstall/kustomization.yaml")
    assert theirs["resources"] == [".."]
    (image,) = ours["images"]
    assert image["name"] == IMAGE


def test_the_guard_is_a_component_that_kubernetes_takes() -> None:
    """Named in kustomization.yaml it is in uninstall/ as well, which stands on that."""
    for release in RELEASES:
        kubernetes_validate.validate(with_guard(), release, strict=True)
    assert documents("guard/kustomization.yaml")[0]["kind"] == "Component"


def with_guard() -> dict[str, Any]:
    """The DaemonSet as guard/ changes it."""
    daemons = document("DaemonSet")
    (patch,) = documents("guard/kustomization.yaml")[0]["patches"]
    assert patch["target"] == {"kind": "DaemonSet", "name": daemons["metadata"]["name"]}
    for operation in yaml.safe_load(patch["patch"]):
        *above, name = operation["path"].strip("/").split("/")
        place: Any = daemons
        for key in above:
            place = place[int(key)] if isinstance(place, list) else place[key]
        assert (name in place) is (operation["op"] == "replace")
        place[name] = operation["value"]
    return daemons


def test_they_fit_each_other() -> None:
    pod, runtime, daemons = document("Pod"), document("RuntimeClass"), document("DaemonSet")
    assert pod["spec"]["runtimeClassName"] == runtime["metadata"]["name"]
    template = daemons["spec"]["template"]
    assert runtime["scheduling"]["nodeSelector"] == template["spec"]["nodeSelector"]
    assert daemons["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    namespace = document("Namespace")["metadata"]["name"]
    assert daemons["metadata"]["namespace"] == namespace
    for name in (ADMISSION, SERVICE_ACCOUNT):
        policy, binding = documents(name)
        assert binding["spec"]["policyName"] == policy["metadata"]["name"]
        assert admit(pod, rules=policy["spec"]) == []


def test_the_hook_takes_the_example() -> None:
    with in_force(UNCONFINED):
        done = command("check", "--file", FOLDER / EXAMPLE)
    assert done.returncode == DONE, done.stderr
    assert "granted by rule" in done.stdout


# ---- a node ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A host without the hook; the directory is what written() looks into."""
    directory = tmp_path_factory.mktemp("node")
    with fresh(directory):
        yield directory


@pytest.fixture(scope="module")
def cluster(node: Path) -> Iterator[World]:
    """The node's engine, with the image that Containerfile makes."""
    with podman_as_installed() as world:
        base = "BASE=localhost/oci-bpf-hook-test:latest"
        containerfile = ("--file", str(FOLDER / "Containerfile"), "--tag", IMAGE)
        world.podman("build", "--pull-never", "--build-arg", base, *containerfile, str(ROOT))
        yield world


def visit(
    world: World,
    arguments: list[str],
    *,
    fails: bool = False,
    daemons: dict[str, Any] | None = None,
) -> str:
    """The DaemonSet's init container, with what its manifest gives it."""
    (container,) = (daemons or document("DaemonSet"))["spec"]["template"]["spec"]["initContainers"]
    security = container["securityContext"]
    (mount,) = container["volumeMounts"]
    # A hostPath is mounted with all that is mounted there.
    volume = f"/:{mount['mountPath']}:rbind"
    privileges = ["--privileged"]
    if not security.get("privileged"):
        privileges = [
            *(f"--cap-drop={one}" for one in security["capabilities"]["drop"]),
            *(f"--cap-add={one}" for one in security["capabilities"]["add"]),
            *("--security-opt", "no-new-privileges"),
        ]
    done = world.podman(
        *("run", "--rm", "--pull", "never", "--read-only", "--user", str(security["runAsUser"])),
        *privileges,
        *(f"--env={one['name']}={one['value']}" for one in container.get("env", ())),
        *("--cgroup-parent", f"/{world.cgroup_parent}"),
        *("--volume", volume, IMAGE, *arguments),
        # crun lifts a limit for containers without a user namespace, which not every root may.
        runtime="runc",
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def granted(world: World) -> bool:
    done = world.run("crun", command=["cat", "/proc/mounts"], annotations=ASK)
    assert done.returncode == 0, done.stderr
    return "delegate_progs=socket_filter" in done.stdout


def test_a_node_that_is_visited_twice_and_left(node: Path, cluster: World) -> None:
    (container,) = document("DaemonSet")["spec"]["template"]["spec"]["initContainers"]
    before = written(node)
    lines = visit(cluster, container["args"]).splitlines()
    assert lines[-1] == "install: done"
    assert lines[-2] == f"write {HOOK_JSON} (0644)"
    assert json.loads(HOOK_JSON.read_text())["hook"]["args"][1:] == container["args"][2:]
    assert granted(cluster)
    assert visit(cluster, container["args"]) == "install: done\n"
    (patch,) = documents("uninstall/kustomization.yaml")[0]["patches"]
    (operation,) = yaml.safe_load(patch["patch"])
    assert operation["path"] == "/spec/template/spec/initContainers/0/args"
    lines = visit(cluster, operation["value"]).splitlines()
    assert lines[0] == f"remove {HOOK_JSON}"
    assert lines[-1] == "uninstall: done"
    assert not granted(cluster)
    assert visit(cluster, operation["value"]) == "uninstall: done\n"
    assert not LIBEXEC.exists()
    assert {path for path in written(node) - before if "/log/" not in path} == set()
    assert list(Path("/run").glob("oci-bpf-hook-*")) == []


def test_a_node_whose_kernel_can_t_have_the_guard(node: Path, cluster: World) -> None:
    """As this one; the tests in virtual machines turn it on.  What is pinned is the node's."""
    (container,) = document("DaemonSet")["spec"]["template"]["spec"]["initContainers"]
    with bpffs() as place:
        said = visit(cluster, container["args"], fails=True, daemons=with_guard())
        assert "the guard can't be loaded, load: Operation not permitted" in said
        assert HOOK_JSON.exists()
        assert [path.name for path in place.iterdir() if "." not in path.name] == []
        pin()
        visit(cluster, ["uninstall", "/node", "--force"], daemons=with_guard())
        assert not os.path.exists(PINS)
    assert not LIBEXEC.exists()
    assert list(Path("/run").glob("oci-bpf-hook-*")) == []


def test_an_image_without_the_guard_isn_t_built(cluster: World, tmp_path: Path) -> None:
    tree = source_of("1.0.0", tmp_path)
    for path in tree.rglob("guard.*.o"):
        path.unlink()
    containerfile = tree / "contrib" / "kubernetes" / "Containerfile"
    done = cluster.podman(
        *("build", "--pull-never", "--build-arg", "BASE=localhost/oci-bpf-hook-test:latest"),
        *("--file", str(containerfile), "--tag", "localhost/without-the-guard", str(tree)),
        check=False,
    )
    assert done.returncode != 0
    assert "guard.bpfel.o" in done.stderr


def test_a_node_that_cant_be_written(node: Path, cluster: World) -> None:
    (container,) = document("DaemonSet")["spec"]["template"]["spec"]["initContainers"]
    run("mount", "--bind", "/usr", "/usr")
    try:
        run("mount", "-o", "remount,bind,ro", "/usr")
        said = visit(cluster, container["args"], fails=True)
    finally:
        run("umount", "--lazy", "/usr")
    assert "Read-only file system" in said
    assert not LIBEXEC.exists()
    assert not HOOK_JSON.exists()
    assert list(Path("/run").glob("oci-bpf-hook-*")) == []


def test_a_node_without_python(tmp_path: Path) -> None:
    done = run("sh", "-c", f"{shlex.quote(f'{FOLDER}/node')} install '{tmp_path}' 2>&1 || true")
    assert "this node has no /usr/bin/python3, 3.11 or later" in done
    assert list(tmp_path.iterdir()) == []
