"""What `podman exec` gives of that which the hook at precreate has added to a container."""

from collections.abc import Iterator

import pytest

from tests.support.engines import RUNTIMES, Runtime
from tests.support.podman import IMAGE, World
from tests.support.policy import UNCONFINED, in_force
from tests.support.precreate_podman import WITH_BOTH, podman
from tests.support.scratch import LAUNCHER


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with podman(LAUNCHER) as made, in_force(UNCONFINED):
        yield made


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_podman_exec_has(world: World, runtime: Runtime) -> None:
    """The capabilities, for root and for the container's own user; the variable only if named."""
    name = f"exec-{runtime}"
    script = 'grep CapEff /proc/self/status; echo "at $LIBBPF_BPF_TOKEN_PATH"'
    own, none = "0000008000001000", f"{0:016}"

    def executed(*options: str) -> list[str]:
        done = world.podman("exec", *options, name, "sh", "-c", script, runtime=runtime)
        capabilities, where = done.stdout.splitlines()
        return [capabilities.split()[1], where]

    for user, has in (("0", WITH_BOTH), ("1000", own)):
        world.podman(
            *("create", "--name", name, "--cgroup-parent", f"/{world.cgroup_parent}"),
            *("--uidmap", "0:100000:65536", "--annotation", "io.bpffs.profile=xdp"),
            *("--annotation", "io.bpffs.path=/run/bpf", "--user", user, IMAGE, "sleep", "1000"),
            runtime=runtime,
        )
        try:
            world.podman("start", name, runtime=runtime)
            assert executed() == [has, "at "]
            assert executed("--env", "LIBBPF_BPF_TOKEN_PATH=/run/bpf") == [has, "at /run/bpf"]
            assert executed("--user", "0") == [WITH_BOTH, "at "]
            assert executed("--user", "2000") == [none, "at "]
        finally:
            world.podman("rm", "--force", "--time", "0", name, runtime=runtime, check=False)
