"""Rootless podman, and createContainer: real engines, a real broker, unprivileged users."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.errors import NO_BROKER, REFUSED
from oci_bpf_hook.paths import SOCKET
from tests.support.broker import Broker
from tests.support.command import command
from tests.support.engines import FIRST_ID, RUNTIMES, CompletedProcess, Runtime
from tests.support.hostile import evil_files, hostile_image
from tests.support.podman import World
from tests.support.policy import UNCONFINED, audited, in_force, trusting
from tests.support.scratch import LAUNCHER, install, io
from tests.support.users import ALICE, BOB, users

CREATE_RUNTIME = LAUNCHER.with_suffix(".json")
CREATE_CONTAINER = LAUNCHER.with_name("oci-bpf-hook-createContainer.json")
STAGES = {
    "createContainer": (CREATE_CONTAINER,),
    "createRuntime": (CREATE_RUNTIME,),
    "both": (CREATE_RUNTIME, CREATE_CONTAINER),
}
HASH = io(
    delegate_cmds="map_create:prog_load",
    delegate_maps="hash",
    delegate_progs="socket_filter",
    delegate_attachs="cgroup_inet_ingress",
)
# What a program tries through its token, and what comes of it.
EXACTLY = (
    ("map /sys/fs/bpf 1", "ok"),
    ("map /sys/fs/bpf 2", "EPERM"),
    ("prog /sys/fs/bpf 1 0", "ok"),
    ("prog /sys/fs/bpf 6 0", "EPERM"),
)
SCRIPT = "; ".join(["mount -t bpf", *(f"probe {words}" for words, _ in EXACTLY)])


@pytest.fixture(scope="module", autouse=True)
def everybody() -> Iterator[None]:
    with users():
        yield


@pytest.fixture(scope="module")
def launcher() -> Iterator[Path]:
    """The hook where everybody can run it, wherever the checkout is."""
    with tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield install(Path(directory) / "installed")


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def alice() -> Iterator[World]:
    with World(ALICE) as world:
        yield world


@pytest.fixture(scope="module")
def bob() -> Iterator[World]:
    with World(BOB) as world:
        yield world


def register(world: World, launcher: Path, *files: Path, **changes: Any) -> None:
    world.remove_hooks()
    for file in files:
        world.install_hook(launcher, file, **changes)


def run(
    world: World,
    runtime: Runtime,
    *options: str,
    annotations: dict[str, str] = HASH,
    command: Sequence[str] = ("sh", "-c", SCRIPT),
) -> CompletedProcess:
    return world.run(
        runtime, *options, annotations=annotations, command=command, capabilities=["BPF"]
    )


def assert_exactly(done: CompletedProcess) -> None:
    """One mount, and a token that is good for what was granted and nothing else."""
    assert done.returncode == 0, done.stderr
    (mount, *results) = done.stdout.splitlines()
    assert "nosuid,nodev,noexec" in mount
    assert mount.endswith("delegate_attachs=cgroup_inet_ingress)")
    found = [json.loads(line) for line in results]
    assert [line["token"] for line in found] == ["ok"] * len(EXACTLY)
    assert [line["result"] for line in found] == [result for _, result in EXACTLY]


def code_of(done: CompletedProcess, runtime: Runtime) -> str:
    """How an engine shows the exit code of a hook: crun's words, and runc's."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return "exit code: {}" if runtime == "crun" else "exit status {}"


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("userns", ["", "keep-id", "auto"])
def test_a_user(
    broker: Broker, alice: World, launcher: Path, userns: str, stage: str, runtime: Runtime
) -> None:
    register(alice, launcher, *STAGES[stage])
    before = len(audited())
    assert_exactly(run(alice, runtime, *([f"--userns={userns}"] if userns else [])))
    (line,) = audited()[before:]
    assert (line["outcome"], line["requester"]["user"]) == ("granted", ALICE.uid)
    assert line["requester"]["rootless"] is True


def test_two_users_at_once(broker: Broker, alice: World, bob: World, launcher: Path) -> None:
    text = f"""\
version: 1
rules:
- {{name: alices, match: {{user: {ALICE.name}}}, allow: {{delegate_cmds: [map_create, prog_load],
    delegate_maps: [hash], delegate_progs: [socket_filter],
    delegate_attachs: [cgroup_inet_ingress]}}}}
- {{name: bobs, match: {{user: {BOB.name}}}, allow: {{delegate_cmds: [map_create],
    delegate_maps: [array]}}}}
"""
    array = io(delegate_cmds="map_create", delegate_maps="array")
    command = ("sh", "-c", "probe map /sys/fs/bpf 2; probe map /sys/fs/bpf 1")
    for world in (alice, bob):
        register(world, launcher, CREATE_CONTAINER)
    with in_force(trusting(text)), ThreadPoolExecutor(4) as pool:
        hers = pool.submit(run, alice, "crun")
        refused = pool.submit(run, bob, "crun")
        his = pool.submit(run, bob, "runc", annotations=array, command=command)
        assert_exactly(hers.result())
        assert his.result().returncode == 0, his.result().stderr
        results = [json.loads(line)["result"] for line in his.result().stdout.splitlines()]
        assert results == ["ok", "EPERM"]
        assert code_of(refused.result(), "crun").format(REFUSED) in refused.result().stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_user_is_refused(broker: Broker, alice: World, launcher: Path, runtime: Runtime) -> None:
    """By the built-in policy: what a user attaches reaches the host's network."""
    register(alice, launcher, CREATE_CONTAINER)
    before = len(audited())
    with in_force(None):
        xdp = {**HASH, **io(delegate_progs="xdp")}
        done = run(alice, runtime, annotations=xdp, command=["true"])
    assert code_of(done, runtime).format(REFUSED) in done.stderr
    if runtime == "runc":
        assert "doesn't allow io.bpffs.delegate_progs" in done.stderr
    (line,) = audited()[before:]
    assert (line["outcome"], line["code"], line["granted"]) == ("refused", REFUSED, None)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_cdi_device(broker: Broker, alice: World, launcher: Path, runtime: Runtime) -> None:
    """A user's engine reads the administrator's file, and whatever the user puts beside it."""
    register(alice, launcher)
    subprocess.run(["mkdir", "-p", "/etc/cdi"], check=True)
    try:
        with in_force(UNCONFINED):
            assert command("cdi", "generate", "--hook", launcher).returncode == 0
            done = run(alice, runtime, "--device=bpffs.io/profile=socket-filter", annotations={})
            line = audited()[-1]
            refused = run(alice, runtime, "--device=bpffs.io/profile=xdp", command=["true"])
    finally:
        subprocess.run(["rm", "-r", "/etc/cdi"], check=True)
    assert "delegate_progs=socket_filter," in done.stdout, done.stderr
    assert line["rule"] == "host-network"
    assert line["requested"] == io(profile="socket-filter")
    assert "cdi" not in line["requester"]
    assert code_of(refused, runtime).format(REFUSED) in refused.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_broker(alice: World, launcher: Path, runtime: Runtime) -> None:
    register(alice, launcher, CREATE_CONTAINER)
    path = Path(SOCKET)
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        done = run(alice, runtime, command=["true"])
        nothing = alice.run(runtime, command=["echo", "fine"], capabilities=[])
    finally:
        aside.rename(path)
    assert code_of(done, runtime).format(NO_BROKER) in done.stderr
    # Who doesn't ask isn't kept waiting.
    assert (nothing.returncode, nothing.stdout) == (0, "fine\n")


def test_a_name_of_podmans(broker: Broker, alice: World, launcher: Path) -> None:
    """KEY/NAME, inside of the container's own pid namespace and outside."""
    for stage in ("createContainer", "createRuntime"):
        register(alice, launcher, *STAGES[stage])
        for options in ([], ["--userns=keep-id"]):
            named = {f"{key}/web": text for key, text in HASH.items()}
            assert_exactly(run(alice, "crun", "--name=web", *options, annotations=named))
            other = ["--name=other", *options]
            command = ["sh", "-c", "mount -t bpf; echo none"]
            done = run(alice, "crun", *other, annotations=named, command=command)
            assert (done.returncode, done.stdout) == (0, "none\n"), done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_restart_and_exec(broker: Broker, alice: World, launcher: Path, runtime: Runtime) -> None:
    register(alice, launcher, CREATE_CONTAINER)
    # With --rm, which comes first, podman removes it while it is restarted.
    options = ["--rm=false", "--name=stays", "--detach", "--init"]
    done = run(alice, runtime, *options, command=["sleep", "1000"])
    assert done.returncode == 0, done.stderr
    try:
        for again in (False, True):
            if again:
                alice.podman("restart", "--time=0", "stays", runtime=runtime)
            assert_exactly(alice.podman("exec", "stays", "sh", "-c", SCRIPT, runtime=runtime))
    finally:
        alice.podman("rm", "--force", "--time=0", "stays", runtime=runtime)


# ---- rootful, through the broker -------------------------------------------------------------


@pytest.fixture(scope="module")
def rootful() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_rootful(broker: Broker, rootful: World, launcher: Path, runtime: Runtime) -> None:
    register(rootful, launcher, CREATE_CONTAINER)
    before = len(audited())
    assert_exactly(run(rootful, runtime))
    (line,) = audited()[before:]
    assert line["peer"]["uid"] == FIRST_ID
    assert (line["requester"]["user"], line["requester"]["rootless"]) == (0, False)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_rootful_both_stages(
    broker: Broker, rootful: World, launcher: Path, runtime: Runtime
) -> None:
    """The first does it as root, the second finds it done: with a broker, and without."""
    register(rootful, launcher, CREATE_RUNTIME, CREATE_CONTAINER)
    before = len(audited())
    assert_exactly(run(rootful, runtime))
    path = Path(SOCKET)
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        assert_exactly(run(rootful, runtime))
    finally:
        aside.rename(path)
    assert len(audited()) == before + 2


def test_rootful_with_a_device(broker: Broker, rootful: World, launcher: Path) -> None:
    """For which crun gives a wrong bundle."""
    register(rootful, launcher, CREATE_CONTAINER)
    assert_exactly(run(rootful, "crun", "--device=/dev/null:/dev/x"))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_rootful_without_a_user_namespace(
    broker: Broker, rootful: World, launcher: Path, runtime: Runtime
) -> None:
    register(rootful, launcher, CREATE_CONTAINER)
    done = rootful.run(
        runtime, annotations=HASH, command=["true"], userns=False, capabilities=["BPF"]
    )
    assert code_of(done, runtime).format(14) in done.stderr


# ---- what the hook is at createContainer ---------------------------------------------------------


_REPORTS = """#!/bin/sh
{ readlink /proc/self/ns/user; grep -E 'CapEff|Uid' /proc/self/status; } > "$REPORT"
exec "$LAUNCHER"
"""


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("rootless", [True, False])
def test_it_has_no_capability_on_the_host(
    broker: Broker,
    alice: World,
    rootful: World,
    launcher: Path,
    runtime: Runtime,
    rootless: bool,
) -> None:
    world, uid = (alice, ALICE.uid) if rootless else (rootful, FIRST_ID)
    with tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory:
        os.chmod(directory, 0o777)
        script = Path(directory) / "reports"
        script.write_text(_REPORTS)
        script.chmod(0o755)
        report = Path(directory) / "report"
        environment = {"REPORT": str(report), "LAUNCHER": str(launcher)}
        register(world, script, CREATE_CONTAINER, env=environment)
        assert_exactly(run(world, runtime))
        namespace, uids, capabilities = report.read_text().splitlines()
        # All of them, of a user namespace that isn't the host's; and of the host the owner's id.
        assert namespace != "user:[4026531837]"  # PROC_USER_INIT_INO
        assert int(capabilities.split()[1], 16)
        assert uids.split()[1:] == ["0"] * 4
        status = report.stat()
        assert status.st_uid == uid


# ---- hostile images ------------------------------------------------------------------------------


@pytest.fixture
def evil() -> Iterator[tuple[Path, Path]]:
    with evil_files() as made:
        yield made


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("rootless", [True, False])
def test_nothing_of_the_image_runs(
    broker: Broker,
    alice: World,
    rootful: World,
    launcher: Path,
    evil: tuple[Path, Path],
    runtime: Runtime,
    rootless: bool,
) -> None:
    world = alice if rootless else rootful
    directory, marker = evil
    image = hostile_image(world, directory)
    register(world, launcher, CREATE_CONTAINER)
    mapping = f"0:{FIRST_ID}:65536"
    userns = [] if rootless else ["--uidmap", mapping, "--gidmap", mapping]
    cgroup = [] if rootless else [f"--cgroup-parent=/{world.cgroup_parent}"]
    if rootless and runtime == "crun":
        cgroup = ["--cgroups=disabled"]
    # Joined by ":", and so no words that podman splits.
    annotations = [f"--annotation={key}={text}" for key, text in HASH.items()]
    arguments = ["run", "--rm", "--pull=never", *userns, *cgroup, *annotations, image]

    done = world.podman(*arguments, "true", runtime=runtime, check=False)
    assert done.returncode == 0, done.stderr
    assert not marker.exists()

    # The same without the JSON's env: runc 1.1 hands the image's over, so the test can fail.
    installed = world.hooks_dir / CREATE_CONTAINER.name
    config = json.loads(installed.read_text())
    del config["hook"]["env"]
    installed.write_text(json.dumps(config))
    world.podman(*arguments, "true", runtime=runtime, check=False)
    assert marker.exists() == (runtime == "runc")
