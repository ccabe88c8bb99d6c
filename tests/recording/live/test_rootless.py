"""A user's own containers, recorded by that user: rootless podman, crun, runc and a real broker."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.engines import RUNTIMES, Runtime
from tests.support.podman import IMAGE, World
from tests.support.policy import EVERYTHING, audited, in_force
from tests.support.rootless import installed
from tests.support.users import ALICE

RECORDING = f"{EVERYTHING}      record: true\n"
RINGBUF = "27"


class Alice(NamedTuple):
    """Her podman, and where she finds the package."""

    world: World
    package: Path


@pytest.fixture(scope="module")
def alice() -> Iterator[Alice]:
    with installed() as (world, launcher):
        yield Alice(world, launcher.parent)


def record(alice: Alice, runtime: Runtime) -> subprocess.CompletedProcess[str]:
    """Have her record a program that makes a ring buffer; what is needed is on stdout."""
    world = alice.world
    lines = Path(world.environment["CONTAINERS_CONF"]).read_text().splitlines()
    lines.insert(lines.index("[engine]") + 1, f'runtime = "{runtime}"')
    conf = world.directory / f"{runtime}.conf"
    conf.write_text("\n".join(lines) + "\n")
    command = (
        *("/usr/bin/python3", "-m", "oci_bpf_hook", "record", "--container"),
        *("--format", "json", "--output", "-", "--seccomp", str(world.seccomp), "--"),
        # A user has no cgroup to make a container's in; podman lets only crun do without.
        *("--cgroups=disabled",) * (runtime == "crun"),
        *("--rm", "--cap-add=BPF", "--pull=never", IMAGE, "probe", "map", "/sys/fs/bpf", RINGBUF),
    )
    more = {"CONTAINERS_CONF": str(conf), "PYTHONPATH": str(alice.package)}
    return subprocess.run(
        ALICE.running(command),
        env={**os.environ, **world.environment, **more},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_user_s_container(alice: Alice, runtime: Runtime) -> None:
    with in_force(RECORDING):
        done = record(alice, runtime)
    assert (done.returncode, done.stderr) == (0, "")
    program, _, needed = done.stdout.partition("\n")
    assert json.loads(program) == {"token": "ok", "result": "ok"}
    lists = json.loads(needed)
    assert (lists["delegate_cmds"], lists["delegate_maps"]) == (["map_create"], ["ringbuf"])
    (line,) = audited()[-1:]
    assert line["requested"].keys() == {"io.bpffs.record"}
    assert line["requester"]["user"] == ALICE.uid
    assert list((alice.world.directory / "run" / "oci-bpf-hook" / "record").iterdir()) == []


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_only_where_the_policy_allows_it(alice: Alice, runtime: Runtime) -> None:
    done = record(alice, runtime)
    assert done.returncode == 126
    assert json.loads(done.stdout)["delegate_cmds"] == []
    (line,) = audited()[-1:]
    assert (line["outcome"], line["rule"]) == ("refused", "everything")
