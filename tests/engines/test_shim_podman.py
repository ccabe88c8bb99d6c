"""The shim in podman's containers: an annotation or a device, for programs that know no tokens."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.errors import BAD_STATE, REFUSED
from oci_bpf_hook.oci.cdi import PLACE
from oci_bpf_hook.shim import preload
from tests.support import shim
from tests.support.broker import Broker
from tests.support.bundle import Bundle
from tests.support.command import command
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime, build_probe
from tests.support.podman import IMAGE, World
from tests.support.policy import EVERYTHING, in_force
from tests.support.precreate_podman import PRECREATE, podman, refused
from tests.support.scratch import io
from tests.support.users import ALICE, users

SHIM = EVERYTHING.replace("confined: false", "confined: false\n      shim: true")
DEVICES = (
    EVERYTHING
    + """
profiles:
  arrays:
    delegate_cmds: [map_create]
    delegate_maps: [array]
"""
)
ASK = io(**shim.SMALL)
SHIMMED = ASK | io(shim="true")
CREATE = "situations create"
GLIBC, _ = preload._LOADERS[os.uname().machine]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield shim.install(Path(directory) / "installed")


@pytest.fixture(scope="module")
def world(launcher: Path) -> Iterator[World]:
    with podman(launcher) as made:
        for libc in shim.COMPILERS:
            shim.image(made, libc)
        yield made


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    with in_force(SHIM):
        yield


def run(
    world: World,
    runtime: Runtime,
    libc: str,
    annotations: dict[str, str],
    *options: str,
    script: str = CREATE,
    first: int = 100_000,
) -> CompletedProcess:
    image = f"localhost/shim-{libc}:latest"
    return world.attached(
        *("run", "--rm", "--pull=never", "--cgroup-parent", f"/{world.cgroup_parent}"),
        *(f"--uidmap=0:{first}:65536", f"--gidmap=0:{first}:65536"),
        *(f"--annotation={key}={value}" for key, value in annotations.items()),
        *options,
        *(image if libc else IMAGE, "sh", "-c", script),
        runtime=runtime,
    )


def output(done: CompletedProcess) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.mark.parametrize("libc", shim.COMPILERS)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_annotation(world: World, runtime: Runtime, libc: str) -> None:
    assert output(run(world, runtime, libc, ASK)) == "create EPERM\n"
    assert output(run(world, runtime, libc, SHIMMED)) == "create ok\n"
    # What isn't delegated stays refused.
    less = SHIMMED | io(delegate_maps="hash")
    assert output(run(world, runtime, libc, less)) == "create EPERM\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_can_t_be_changed_and_is_preloaded_last(world: World, runtime: Runtime) -> None:
    script = f"exec 2>&1; echo $LD_PRELOAD; grep {PLACE} /proc/self/mountinfo; : >{PLACE}"
    # It is there anyway, and so preloading it changes nothing.
    other = ("-e", f"LD_PRELOAD=/{GLIBC}")
    done = run(world, runtime, "glibc", SHIMMED, *other, script=script)
    variable, mount, refused = done.stdout.splitlines()
    assert variable == f"/{GLIBC}:{PLACE}"
    assert {"ro", "nosuid", "nodev"} <= set(mount.split()[5].split(","))
    assert "Read-only file system" in refused
    assert output(run(world, runtime, "glibc", SHIMMED, *other)) == "create ok\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nobody_can_change_it_for_others(world: World, runtime: Runtime) -> None:
    """As the host's root in a namespace of its own, who may mount it again, writable."""
    again = f"mount -o remount,bind,rw {PLACE}; : >>{PLACE} && echo writable"
    admin = ("--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined")
    done = run(world, runtime, "glibc", SHIMMED, *admin, script=again, first=0)
    assert done.stdout == ""
    assert re.search(rf"(exit code: |exit status ){BAD_STATE}\b", done.stderr), done.stderr
    # Without the shim there is nothing to change.
    assert output(run(world, runtime, "glibc", ASK, first=0)) == "create EPERM\n"
    # Who isn't the host's root can't, whatever the mount allows.
    done = run(world, runtime, "glibc", SHIMMED, *admin, script=again)
    assert done.stdout == ""
    assert PLACE in done.stderr


@pytest.mark.parametrize("path", ["/run/bpf", "/sys/fs/bpf"])
def test_the_bpffs_may_be_elsewhere(world: World, path: str) -> None:
    asked = SHIMMED | io(path=path)
    assert output(run(world, "crun", "glibc", asked)) == "create ok\n"


def test_an_image_that_can_t_load_it(world: World) -> None:
    refused(run(world, "crun", "", SHIMMED, script="id"), BAD_STATE)
    assert run(world, "crun", "", ASK, script="id").returncode == 0


def test_whom_the_policy_doesn_t_let_have_it(world: World) -> None:
    with in_force(EVERYTHING):
        refused(run(world, "crun", "glibc", SHIMMED), REFUSED)
        assert output(run(world, "crun", "glibc", ASK)) == "create EPERM\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_without_precreate_nothing_can_add_it(world: World, runtime: Runtime) -> None:
    path = world.hooks_dir / PRECREATE.name
    kept = path.read_text()
    path.unlink()
    try:
        done = run(world, runtime, "glibc", SHIMMED)
        assert done.returncode != 0
        assert re.search(rf"(exit code: |exit status ){BAD_STATE}\b", done.stderr), done.stderr
        # Who adds it by hand has it.
        library = shim.library()
        volume = ("-v", f"{library}:{PLACE}:ro", "-e", f"LD_PRELOAD={PLACE}", "--cap-add=BPF")
        seccomp = f"--security-opt=seccomp={world.seccomp}"
        for asked in (ASK, SHIMMED):
            done = run(world, runtime, "glibc", asked, *volume, seccomp)
            assert output(done) == "create ok\n"
    finally:
        path.write_text(kept)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_device(world: World, launcher: Path, runtime: Runtime) -> None:
    """The device's profile, and the shim; libraries that the image preloads are not kept."""
    file = Path("/etc/cdi/bpffs.io-profile.json")
    generate = ("cdi", "generate", "--hook", launcher, "--profile", "arrays")
    device = ("--device=bpffs.io/profile=arrays", "--cap-add=BPF")
    seccomp = f"--security-opt=seccomp={world.seccomp}"
    try:
        with in_force(DEVICES):
            assert command(*generate).returncode == 0
            without = output(run(world, runtime, "glibc", {}, *device, seccomp))
            assert command(*generate, "--shim").returncode == 0
            assert command("cdi", "check").returncode == 0
            with_it = output(run(world, runtime, "glibc", {}, *device, seccomp))
            static = run(world, runtime, "", {}, *device, seccomp, script="id")
        assert (without, with_it) == ("create EPERM\n", "create ok\n")
        assert static.returncode != 0
        assert re.search(rf"(exit code: |exit status ){BAD_STATE}\b", static.stderr), static.stderr
    finally:
        file.unlink(missing_ok=True)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_bundle(world: World, launcher: Path, tmp_path: Path, runtime: Runtime) -> None:
    probe = build_probe(tmp_path / "probe")
    annotations = [f"--annotation={key}={value}" for key, value in SHIMMED.items()]
    with Bundle(probe=probe, command=["situations", "create"], capabilities=()) as bundle:
        file = bundle.directory / "config.json"
        file.write_text(json.dumps(bundle.config))
        words = ["inject", str(bundle.directory), "--hook", str(launcher), "--capabilities"]
        refusal = command(*words, *annotations)
        assert refusal.returncode == BAD_STATE
        assert "no loader of glibc or musl" in refusal.stderr
        for path in ("lib", "lib64", "usr", "bin/situations"):
            source = world.directory / "rootfs-glibc" / path
            if source.is_dir():
                shutil.copytree(source, bundle.rootfs / path, symlinks=True, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, bundle.rootfs / path)
        assert command(*words, *annotations).returncode == 0
        bundle.config = json.loads(file.read_text())
        done = bundle.run(runtime)
        assert done.stdout == "create ok\n", done
        assert command("inject", bundle.directory, "--undo").returncode == 0
        assert "LD_PRELOAD" not in file.read_text()


def test_a_user(launcher: Path) -> None:
    """Rootless, where the broker decides and the user's hook adds it."""
    with users(), podman(launcher, ALICE) as alice, Broker():
        shim.image(alice, "glibc")
        done = alice.run(
            "crun",
            annotations=SHIMMED,
            command=["true"],
            capabilities=(),
        )
        refused(done, BAD_STATE)
        arguments = [f"--annotation={key}={value}" for key, value in SHIMMED.items()]
        image = "localhost/shim-glibc:latest"
        limits = ("run", "--rm", "--pull=never", "--cgroups=disabled", *arguments, image)
        done = alice.podman(*limits, "sh", "-c", CREATE, check=False)
        assert output(done) == "create ok\n"
        with in_force(EVERYTHING):
            refused(alice.podman(*limits, "sh", "-c", CREATE, check=False), REFUSED)
