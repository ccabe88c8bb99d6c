"""doctor --container with podman's own containers, on both runtimes."""

import json

import pytest

from tests.support.engines import RUNTIMES
from tests.support.podman import World
from tests.support.situation import detached, findings, others


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container_of_podman_s(world: World, runtime: str) -> None:
    with detached(world, "--cap-add=BPF", runtime=runtime) as name:
        assert others(findings("--container", name)) == {}


def test_podman_without_the_capability(world: World) -> None:
    with detached(world) as name:
        found = others(findings("--container", name))
    # Its seccomp profile refuses too, because of that.
    assert set(found) == {"cap-bpf"}
    assert found["cap-bpf"]["fix"].startswith("podman run --cap-add BPF")


def test_podman_with_a_profile_that_refuses(world: World) -> None:
    profile = world.directory / "refuses.json"
    rules = json.loads(world.seccomp.read_text())
    rules["syscalls"] = [rule for rule in rules["syscalls"] if "bpf" not in rule["names"]]
    profile.write_text(json.dumps(rules))
    with detached(world, "--cap-add=BPF", f"--security-opt=seccomp={profile}") as name:
        assert set(others(findings("--container", name))) == {"seccomp"}


def test_crun_with_a_device(world: World) -> None:
    with detached(world, "--cap-add=BPF", "--device=/dev/null:/dev/mine") as name:
        found = others(findings("--container", name))
    assert set(found) == {"crun-device"}
    assert "wrong bundle" in found["crun-device"]["why"]


def test_podman_with_the_host_s_network(world: World) -> None:
    lists = {
        "delegate_progs": "socket_filter:xdp",
        "delegate_attachs": "any",
    }
    annotations = [f"--annotation=io.bpffs.{option}={text}" for option, text in lists.items()]
    with detached(
        world, "--cap-add=BPF", "--cap-add=NET_ADMIN", "--network=host", *annotations
    ) as name:
        found = findings("--container", name)
    assert set(others(found)) == {"host-network"}
