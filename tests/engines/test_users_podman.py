"""podman and users that aren't root: which capabilities they have, and that check agrees."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import answer
from tests.support.containers import quadlet
from tests.support.engines import RUNTIMES, Runtime
from tests.support.podman import World
from tests.support.policy import UNCONFINED, in_force
from tests.support.scratch import LAUNCHER, io

ASK = io(profile="xdp")
MAP, PROG = "probe map /sys/fs/bpf 1", "probe prog /sys/fs/bpf 6 37"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made, in_force(UNCONFINED):
        made.install_hook(LAUNCHER, LAUNCHER.with_suffix(".json"))
        yield made


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("capabilities", "privileged", "works"),
    [
        (("BPF", "NET_ADMIN"), False, True),
        (("ALL",), False, True),
        (("BPF",), False, False),
        ((), True, False),
    ],
    ids=str,
)
def test_what_is_added_is_ambient(
    world: World,
    tmp_path: Path,
    capabilities: tuple[str, ...],
    runtime: Runtime,
    *,
    privileged: bool,
    works: bool,
) -> None:
    options = ["--user", "1000", *(["--privileged"] if privileged else [])]
    done = world.run(
        runtime,
        *options,
        annotations=ASK,
        command=["sh", "-c", f"{MAP}; {PROG}"],
        capabilities=capabilities,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count('"result": "ok"') == 2) is works, done.stdout
    unit = tmp_path / "c.container"
    unit.write_text(quadlet(ASK, capabilities=capabilities, privileged=privileged, user=1000))
    code, found = answer("check", "--file", unit)
    assert code == 0
    lacking = [
        one["lint"]
        for one in found["containers"][0]["findings"]
        if one["lint"] in ("cap-bpf", "cap-net-admin", "ambient")
    ]
    assert (lacking == []) is works, lacking
