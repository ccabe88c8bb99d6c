"""precreate with real podman: a container gets a token with an annotation and nothing else.

Debian 12's own seccomp profile is in force, which lets bpf(2) through for CAP_SYS_ADMIN alone.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.errors import NO_BROKER, NO_USER_NAMESPACE, REFUSED, UNKNOWN_NAME
from tests.support.broker import Broker
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime
from tests.support.podman import IMAGE, World
from tests.support.policy import UNCONFINED, audited, in_force
from tests.support.precreate_podman import (
    CAPS,
    HOOK,
    IDS,
    MAP,
    PLAIN,
    PRECREATE,
    PROG,
    WITH_BOTH,
    WITH_BPF,
    XDP,
    build,
    capabilities,
    podman,
    refused,
    results,
    results_of,
    run,
)
from tests.support.scratch import LAUNCHER, install, io
from tests.support.users import ALICE, users

SOCKETS = io(profile="socket-filter")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with podman(LAUNCHER) as made:
        yield made


@pytest.fixture(scope="module")
def alice() -> Iterator[World]:
    with users(), tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        # Where she can run it, wherever the checkout is.
        with podman(install(Path(directory) / "installed"), ALICE) as made:
            yield made


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(UNCONFINED):
        yield


# ---- rootful ----------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_annotation_and_nothing_else(world: World, runtime: Runtime) -> None:
    done = run(world, runtime)
    assert results(done) == ["ok", "ok"]
    assert capabilities(done.stdout) == {WITH_BOTH}
    # Each of the types has what it takes.
    done = run(world, runtime, annotations=SOCKETS)
    assert results(done) == ["ok", "EPERM"]
    assert capabilities(done.stdout) == {WITH_BPF}
    # One record, the hook's at createRuntime.
    assert [line["outcome"] for line in audited()[-2:]] == ["granted", "granted"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_another_path_and_another_user(world: World, runtime: Runtime) -> None:
    script = 'grep CapAmb /proc/self/status; probe map "$LIBBPF_BPF_TOKEN_PATH" 1'
    annotations = {**XDP, **io(path="/run/bpf")}
    done = run(world, runtime, "--user", "1000", annotations=annotations, script=script)
    assert results(done) == ["ok"]
    assert capabilities(done.stdout) == {"0000008000001000"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_who_doesn_t_ask(world: World, runtime: Runtime) -> None:
    done = run(world, runtime, annotations={"io.example": "x"})
    assert "ok" not in results(done)
    assert capabilities(done.stdout) == {PLAIN}


@pytest.mark.parametrize("option", ["--userns=host", "--userns=ns:/proc/self/ns/user"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_hosts_user_namespace(world: World, runtime: Runtime, option: str) -> None:
    """CAP_BPF would be the host's, whatever the namespace is called."""
    refused(run(world, runtime, option, userns=False), NO_USER_NAMESPACE)


@pytest.mark.parametrize(
    ("annotations", "code"),
    [(io(profile="tracing"), REFUSED), (io(delegate_cmds="map_crate"), UNKNOWN_NAME)],
)
def test_refusals(world: World, annotations: dict[str, str], code: int) -> None:
    refused(run(world, "crun", annotations=annotations), code)
    assert audited()[-1]["code"] == code
    # The container's own id, as in the hook's records.
    assert len(audited()[-1]["container"]) == 64


def test_the_hosts_network(world: World) -> None:
    refused(run(world, "crun", "--network=host"), REFUSED)


def test_what_the_configuration_doesn_t_tell(world: World) -> None:
    """The host's cgroups by another name: the hook looks at the container, which doesn't start."""
    elsewhere = world.directory / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "--bind", "/sys/fs/cgroup", elsewhere], check=True)
    try:
        annotations = io(profile="cgroup-network")
        assert run(world, "crun", annotations=annotations, script="id").returncode == 0
        volume = f"--volume={elsewhere}:/elsewhere"
        done = run(world, "crun", volume, annotations=annotations, script="id")
        assert (done.returncode, done.stdout) == (126, "")
        assert f"(exit code: {REFUSED})" in done.stderr
    finally:
        subprocess.run(["umount", elsewhere], check=True)


def test_without_the_hook_itself(world: World) -> None:
    """Nothing is delegated, and nothing decides: nothing is added."""
    (world.hooks_dir / HOOK.name).unlink()
    try:
        done = run(world, "crun")
        assert "ok" not in results(done)
        assert capabilities(done.stdout) == {PLAIN}
    finally:
        world.install_hook(LAUNCHER, HOOK)


def test_without_its_program(world: World) -> None:
    """As when the program is gone before the JSON is: podman leaves such a hook out."""
    world.install_hook(Path("/nowhere/oci-bpf-hook"), PRECREATE)
    try:
        done = run(world, "crun", annotations=SOCKETS)
        assert capabilities(done.stdout) == {PLAIN}
    finally:
        world.install_hook(LAUNCHER, PRECREATE)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_key_with_the_containers_name(world: World, runtime: Runtime) -> None:
    annotations = {f"{key}/mine": text for key, text in XDP.items()}
    done = run(world, runtime, "--name", "mine", annotations=annotations)
    assert results(done) == ["ok", "ok"]
    done = run(world, runtime, "--name", "other", annotations=annotations)
    assert capabilities(done.stdout) == {PLAIN}
    rules = "version: 1\nengine: podman\nrules: [{name: x, match: {container: mine}, allow: %s}]\n"
    with in_force(rules % "{delegate_cmds: [map_create], delegate_maps: [hash]}"):
        asked = io(delegate_cmds="map_create", delegate_maps="hash")
        done = run(world, runtime, "--name", "mine", annotations=asked, script=MAP)
        assert results(done) == ["ok"]
        refused(run(world, runtime, "--name", "other", annotations=asked), REFUSED)


def test_started_again(world: World) -> None:
    """podman asks each time, of what it knows itself; `podman exec` gives root's capabilities."""
    world.podman(
        *("create", "--name", "again", "--cgroup-parent", f"/{world.cgroup_parent}"),
        *("--uidmap", "0:100000:65536", "--annotation", "io.bpffs.profile=xdp", IMAGE),
        *("sh", "-c", f"{CAPS}; {MAP}; exec sleep 1000"),
    )
    try:
        world.podman("start", "again")
        done = world.podman("exec", "again", "sh", "-c", f"{CAPS}; {MAP}; {PROG}")
        assert capabilities(done.stdout) == {WITH_BOTH}
        assert results(done) == ["ok", "ok"]
        world.podman("restart", "--time", "0", "again")
        (found,) = json.loads(world.podman("inspect", "again").stdout)
        assert found["BoundingCaps"].count("CAP_BPF") == 1
        logs = world.podman("logs", "again").stdout
        assert logs.count(WITH_BOTH) == 4
        assert results_of(logs) == ["ok", "ok"]
    finally:
        world.podman("rm", "--force", "--time", "0", "again", check=False)


# ---- pods -------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pod_shares_its_user_namespace(world: World, runtime: Runtime) -> None:
    name, mapping = f"pod-{runtime}", "0:100000:65536"
    world.podman(
        *("pod", "create", "--name", name, "--network", "none", "--uidmap", mapping),
        # The pod cgroup that podman 4.3 makes with cgroupfs lets nobody open a device.
        *("--share-parent=false", "--share", "net,ipc,uts", "--gidmap", mapping),
        *("--cgroup-parent", f"/{world.cgroup_parent}"),
        runtime=runtime,
    )
    try:
        done = run(world, runtime, "--pod", name, userns=False)
        assert results(done) == ["ok", "ok"]
        assert capabilities(done.stdout) == {WITH_BOTH}
        # Beside it, in the same namespaces, is one that hasn't asked.
        script = f"{CAPS}; {MAP}"
        done = run(world, runtime, "--pod", name, annotations={}, script=script, userns=False)
        assert capabilities(done.stdout) == {PLAIN}
        assert results(done) != ["ok"]
    finally:
        world.podman("pod", "rm", "--force", "--time", "0", name, runtime=runtime, check=False)


# ---- rootless ---------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("userns", ["", "keep-id", "auto"])
def test_a_user(alice: World, userns: str, runtime: Runtime) -> None:
    options = [f"--userns={userns}"] if userns else []
    with Broker():
        done = run(alice, runtime, *options, annotations=SOCKETS, script=f"{CAPS}; {MAP}")
        assert results(done) == ["ok"]
        bounding = {name for name in capabilities(done.stdout) if name != "0000008000000000"}
        assert bounding == {WITH_BPF}
        assert audited()[-1]["requester"]["user"] == ALICE.uid
        refused(run(alice, runtime, *options), REFUSED)
        assert run(alice, runtime, *options, annotations={}, script="id").returncode == 0
    refused(run(alice, runtime, *options, annotations=SOCKETS), NO_BROKER)


# ---- podman build -----------------------------------------------------------------------


def test_a_build_goes_on_without_a_token(world: World) -> None:
    """A step has no annotations, not even its image's; the hook, run for it, does nothing."""
    alone = world.directory / "hooks-alone"
    alone.mkdir()
    (alone / HOOK.name).write_text((world.hooks_dir / HOOK.name).read_text())
    ask = ("--annotation", "io.bpffs.profile=xdp", "--hooks-dir", str(alone))
    first = build(world, IMAGE, *ask, tag="asks")
    again = build(world, "localhost/asks", *ask, tag="asks-again")
    apart = build(world, IMAGE, *ask, *IDS, tag="asks-apart")
    for done in (first, again, apart):
        assert done.returncode == 0, done.stderr
        assert capabilities(done.stdout) == {PLAIN}
        assert " bpf " not in done.stdout
    # And buildah 1.28 takes a CDI device's name for a path.
    done = build(world, IMAGE, "--device", "bpffs.io/profile=xdp", tag="device")
    assert "stat bpffs.io/profile=xdp: no such file" in done.stderr


def test_a_step_by_run_and_commit(world: World) -> None:
    """What a build can't do."""
    parent = ("--cgroup-parent", f"/{world.cgroup_parent}", "--uidmap", "0:100000:65536")
    annotation = ("--annotation", "io.bpffs.profile=xdp")
    script = f"{MAP} > /result"
    world.podman("run", "--name", "step", *parent, *annotation, IMAGE, "sh", "-c", script)
    try:
        world.podman("commit", "--quiet", "step", "localhost/step")
    finally:
        # conmon's own clean-up may be at it, and what both leave the world takes away.
        world.podman("rm", "--force", "--time", "0", "step", check=False)
    done = world.podman("run", "--rm", *parent, "localhost/step", "cat", "/result")
    assert results(done) == ["ok"]


def test_builds_know_no_precreate(world: World) -> None:
    """Where buildah looks for hooks as root, that stage breaks every build: hence a directory."""
    hooks = Path("/etc/containers/oci/hooks.d")
    hooks.mkdir(parents=True, exist_ok=True)
    done = build(world, IMAGE, tag="plain")
    assert done.returncode == 0, done.stderr
    broken = hooks / PRECREATE.name
    broken.write_text((world.hooks_dir / PRECREATE.name).read_text())
    try:
        done = build(world, IMAGE, tag="plain")
        assert done.returncode != 0
        assert 'unknown stage "precreate"' in done.stderr
    finally:
        broken.unlink()


# ---- an image's own annotations -----------------------------------------------------------


@pytest.fixture(scope="module")
def asking(world: World) -> str:
    """An image that asks for what the policy gives; its labels say something else."""
    ask = ("--annotation", "io.bpffs.profile=xdp", "--label", "io.bpffs.mode=0700")
    done = build(world, IMAGE, *ask, tag="asking")
    assert done.returncode == 0, done.stderr
    return "localhost/asking"


def of_image(
    world: World, runtime: Runtime, image: str, *options: str, script: str = f"{CAPS}; {MAP}"
) -> CompletedProcess:
    args = ["run", "--rm", "--uidmap", "0:100000:65536", "--pull", "never", *options]
    args += ["--cgroup-parent", f"/{world.cgroup_parent}", image, "sh", "-c", script]
    return world.podman(*args, runtime=runtime, check=False)


@contextmanager
def without_precreate(world: World) -> Iterator[None]:
    (world.hooks_dir / PRECREATE.name).unlink()
    try:
        yield
    finally:
        world.install_hook(LAUNCHER, PRECREATE)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_s_word_gives_nothing(world: World, runtime: Runtime, asking: str) -> None:
    """podman before 4.6 hands its annotations on; the policy in force would allow them."""
    refused(of_image(world, runtime, asking), REFUSED)
    assert '"io.bpffs.profile"' in audited()[-1]["problems"][0]
    with without_precreate(world):
        # With a device crun tells the hook of no bundle.
        for options in ([], ["--device", "/dev/fuse"]):
            done = of_image(world, runtime, asking, *options)
            assert (done.returncode, done.stdout) == (126, "")
            line = audited()[-1]
            assert (line["code"], line["rule"]) == (REFUSED, None)
            assert line["problems"][0].startswith('the image itself says "io.bpffs.profile", ')


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_user_asks_in_spite_of_the_image(world: World, runtime: Runtime, asking: str) -> None:
    for key, text in (("profile/mine", "xdp"), ("profile", "tc")):
        annotation = f"--annotation=io.bpffs.{key}={text}"
        done = of_image(world, runtime, asking, "--name", "mine", annotation)
        assert results(done) == ["ok"]
        assert capabilities(done.stdout) == {WITH_BOTH}
    # Or for nothing at all.
    done = of_image(world, runtime, asking, "--annotation=io.bpffs.profile=")
    assert results(done) != ["ok"]
    assert capabilities(done.stdout) == {PLAIN}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_that_may_ask(world: World, runtime: Runtime, asking: str) -> None:
    """By the administrator's word: a bpffs, and none of what precreate adds for a user."""
    with in_force(f"image_annotations: true\n{UNCONFINED}"):
        done = of_image(world, runtime, asking, script=f"{CAPS}; cat /proc/mounts")
    assert "delegate_progs=socket_filter:xdp," in done.stdout, done.stderr
    # Its labels are no annotations.
    assert "mode=" not in done.stdout.partition(" bpf ")[2].partition("\n")[0]
    assert capabilities(done.stdout) == {PLAIN}


@pytest.mark.parametrize("stage", ["precreate", "createRuntime"])
def test_an_image_of_a_user_s(alice: World, stage: str) -> None:
    """She may have it by her own word, and not by an image's."""
    context = alice.directory / "build-hers"
    context.mkdir(exist_ok=True)
    (context / "Containerfile").write_text(f"FROM {IMAGE}\nENV x=y\n")
    ask = [part for key, text in SOCKETS.items() for part in ("--annotation", f"{key}={text}")]
    alice.podman(
        *("build", "--isolation", "chroot", "--pull-never"),
        *(*ask, "--tag", "localhost/hers", str(context)),
    )
    kept = (alice.hooks_dir / PRECREATE.name).read_text()
    if stage == "createRuntime":
        (alice.hooks_dir / PRECREATE.name).unlink()
    command = ("run", "--rm", "--pull=never", "--cgroups=disabled", "localhost/hers", "true")
    try:
        with Broker():
            before = len(audited())
            done = alice.podman(*command, check=False)
            # The broker isn't even asked.
            assert len(audited()) == before
    finally:
        (alice.hooks_dir / PRECREATE.name).write_text(kept)
    assert (done.returncode, done.stdout) == (126, "")
    assert f"{REFUSED}" in done.stderr.partition("xit ")[2]
