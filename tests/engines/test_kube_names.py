"""podman kube play: what it calls containers, and whose annotations they get, as check has it."""

import json
from collections.abc import Iterator

import pytest

from oci_bpf_hook.formats.containers import read
from oci_bpf_hook.formats.pod_names import of_podman
from tests.support.podman import IMAGE, World
from tests.support.users import ALICE, users


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A user's podman: root's, where it may not lift RLIMIT_MEMLOCK, plays no pod."""
    with users(), World(ALICE) as made:
        yield made


def played(world: World, manifest: dict[str, object]) -> dict[str, dict[str, str]]:
    """The annotations of each container that podman makes of the `manifest`, by its name."""
    file = world.directory / "manifest.yaml"
    file.write_text(json.dumps(manifest))
    options = ("--network", "none", "--log-driver", "k8s-file", "--start=false")
    try:
        world.podman("kube", "play", *options, str(file))
        names = world.podman("ps", "--all", "--format", "{{.Names}}").stdout.split()
        form = "{{json .Config.Annotations}}"
        return {
            name: json.loads(world.podman("inspect", name, "--format", form).stdout)
            for name in names
            if not name.endswith("-infra")
        }
    finally:
        world.podman("kube", "down", str(file), check=False)


@pytest.mark.parametrize("kind", ["Pod", "Deployment"])
def test_names_and_annotations(world: World, kind: str) -> None:
    spec: dict[str, object] = {
        "containers": [{"name": "probe", "image": IMAGE, "command": ["/bin/sh"]}]
    }
    inner = {"metadata": {"labels": {"a": "b"}, "annotations": {"io.bpffs.profile": "in"}}}
    if kind == "Deployment":
        template = {**inner, "spec": spec}
        spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    manifest: dict[str, object] = {
        "apiVersion": "v1" if kind == "Pod" else "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "annotations": {"io.bpffs.profile": "out"}},
        "spec": spec,
    }
    found = played(world, manifest)
    assert found
    assert set(of_podman(kind, manifest, "probe")).issuperset(found)
    (one,) = read(json.dumps(manifest).encode(), "manifest.json", "podman")
    for annotations in found.values():
        assert annotations["io.bpffs.profile"] == one.annotations["io.bpffs.profile"] == "out"
        # Nothing tells the pod's name, the image or the container's name in the pod.
        assert not {"web", "probe", IMAGE}.intersection(annotations.values())
