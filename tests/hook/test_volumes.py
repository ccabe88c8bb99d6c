"""Missing directories: made where only the container sees them, and in no volume, read-only or not.

crun makes what is bound into a container read-only after the hooks have run.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.errors import MOUNT_FAILED
from tests.support.broker import Broker
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime
from tests.support.podman import World
from tests.support.scratch import (
    FIRST_ID,
    LAUNCHER,
    Scratch,
    assert_failed,
    assert_granted,
    install,
    io,
)
from tests.support.users import ALICE, users

ASK = io(delegate_cmds="map_create:prog_load")
CREATE_RUNTIME = LAUNCHER.with_suffix(".json")
CREATE_CONTAINER = LAUNCHER.with_name("oci-bpf-hook-createContainer.json")
VOLUME = "mount(root + '/../volume', root + '/opt', None, BIND | REC)"
TMPFS = "mount('none', root + '/opt', 'tmpfs', 0)"


@contextmanager
def bound(setup: str = VOLUME) -> Iterator[Scratch]:
    """A container, and beside its root filesystem a directory that it may write to."""
    scratch = Scratch(setup=setup)
    volume = scratch.outside / "volume"
    volume.mkdir()
    os.chown(volume, FIRST_ID, FIRST_ID)
    with scratch:
        yield scratch


def volume_of(scratch: Scratch) -> Path:
    return scratch.outside / "volume"


# ---- by the kernel alone -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/opt/new", "/opt/there/new/deep"])
def test_missing_in_a_volume(path: str) -> None:
    with bound() as container:
        volume = volume_of(container)
        (volume / "there").mkdir()
        os.chown(volume / "there", FIRST_ID, FIRST_ID)
        before = volume.stat().st_mtime_ns
        result = container.hook(ASK | io(path=path))
        words = (f'"{path}" is missing', 'the volume at "/opt"', "io.bpffs.path elsewhere")
        assert_failed(result, 16, *words, container=container)
        assert [one.name for one in volume.rglob("*")] == ["there"]
        assert volume.stat().st_mtime_ns == before


def test_a_volume_with_white_space_in_its_name() -> None:
    """Which mountinfo shows as octal numbers."""
    with Scratch(
        tree=("a b", "own"), setup="mount(root + '/own', root + '/a b', None, BIND)"
    ) as container:
        result = container.hook(ASK | io(path="/a b/new"))
        assert_failed(result, 16, 'the volume at "/a b"', container=container)


def test_there_in_a_volume() -> None:
    """Nothing has to be made, and nothing that is mounted shows in it."""
    with bound() as container:
        (volume_of(container) / "there").mkdir()
        assert_granted(container, container.hook(ASK | io(path="/opt/there")))
        assert list((volume_of(container) / "there").iterdir()) == []


def test_missing_in_a_part_of_the_root_filesystem_that_is_mounted_elsewhere() -> None:
    """Which filesystem it is says nothing: the mount may be meant to be read-only."""
    with Scratch(tree=("opt", "own"), setup="mount(root + '/own', root + '/opt', None, BIND)") as (
        container
    ):
        result = container.hook(ASK | io(path="/opt/new"))
        assert_failed(result, 16, 'the volume at "/opt"', container=container)


def test_missing_in_a_volume_in_a_volume() -> None:
    """It is the innermost that is named."""
    setup = f"{VOLUME}; mount(root + '/../volume', root + '/opt/in', None, BIND)"
    scratch = Scratch(setup=setup)
    (volume_of(scratch) / "in").mkdir(parents=True)
    with scratch as container:
        result = container.hook(ASK | io(path="/opt/in/new"))
        assert_failed(result, 16, 'the volume at "/opt/in"', container=container)


def test_missing_in_a_tmpfs_of_the_host() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        host = Path(directory, "tmpfs")
        host.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0777", "none", host], check=True)
        try:
            with Scratch(setup=f"mount('{host}', root + '/opt', None, BIND)") as container:
                result = container.hook(ASK | io(path="/opt/new"))
                assert_failed(result, 16, 'the volume at "/opt"', container=container)
                assert list(host.iterdir()) == []
        finally:
            subprocess.run(["umount", host], check=True)


@pytest.mark.parametrize("path", ["/opt/new", "/opt/new/deep"])
def test_missing_in_a_tmpfs_of_the_containers_own(path: str) -> None:
    with Scratch(setup=TMPFS) as container:
        assert_granted(container, container.hook(ASK | io(path=path)))
        shown = container.enter("stat", "-c", "%u %a", f"{container.root}/opt/new")
        assert shown.stdout.startswith("0 "), shown.stderr


def test_what_was_made_in_a_tmpfs_is_taken_back() -> None:
    """Where the mount fails afterwards: the path is longer than a name may be."""
    with Scratch(setup=TMPFS) as container:
        result = container.hook(ASK | io(path=f"/opt/new/{'x' * 256}"))
        assert_failed(result, 16, "File name too long", container=container)
        assert container.enter("ls", f"{container.root}/opt").stdout == ""


def test_missing_in_a_file_system_without_directories_to_make() -> None:
    with Scratch(setup="mount('none', root + '/opt', 'devpts', 0)") as container:
        result = container.hook(ASK | io(path="/opt/new"))
        assert_failed(result, 16, "make it in the image", container=container)


# ---- with engines ------------------------------------------------------------------------------


def refused(done: CompletedProcess, runtime: Runtime) -> None:
    assert done.returncode != 0, done.stdout
    pattern = "(exit code: {})" if runtime == "crun" else "exit status {}"
    assert pattern.format(MOUNT_FAILED) in done.stderr, done.stderr
    if runtime == "runc":
        assert "make the directory in the volume" in done.stderr


def a_volume(world: World, name: str) -> Path:
    volume = world.directory / name
    volume.mkdir()
    volume.chmod(0o777)
    return volume


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("options", ["ro", "rw", "ro,rshared"])
def test_a_volume_of_podmans(world: World, runtime: Runtime, options: str) -> None:
    volume = a_volume(world, f"volume-{runtime}-{options}")
    before = volume.stat().st_mtime_ns
    mounted = ("--volume", f"{volume}:/data:{options}")
    asked = ASK | io(path="/data/bpf")
    done = world.run(runtime, *mounted, annotations=asked, command=["true"])
    refused(done, runtime)
    assert list(volume.iterdir()) == []
    assert volume.stat().st_mtime_ns == before
    if "shared" in options:
        return
    (volume / "bpf").mkdir()
    done = world.run(runtime, *mounted, annotations=asked, command=["cat", "/proc/mounts"])
    assert " /data/bpf bpf " in done.stdout, done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["--tmpfs", "/run"], "/run/bpf/own"),
        (["--read-only", "--read-only-tmpfs"], "/run/bpf"),
        (["--read-only"], "/bpf"),
    ],
    ids=["tmpfs", "read-only-tmpfs", "read-only"],
)
def test_what_the_container_alone_has(
    world: World, runtime: Runtime, arguments: list[str], path: str
) -> None:
    asked = ASK | io(path=path)
    done = world.run(runtime, *arguments, annotations=asked, command=["cat", "/proc/mounts"])
    assert re.search(rf" {path} bpf .*delegate_cmds", done.stdout), done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_engines_own_tmpfs(world: World, runtime: Runtime) -> None:
    """podman mounts /dev/shm itself, for all containers of a pod."""
    done = world.run(runtime, annotations=ASK | io(path="/dev/shm/bpf"), command=["true"])
    refused(done, runtime)


@pytest.fixture(scope="module")
def alice() -> Iterator[World]:
    with users(), World(ALICE) as world:
        yield world


@pytest.fixture(scope="module")
def launcher() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield install(Path(directory) / "installed")


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "file", [CREATE_RUNTIME, CREATE_CONTAINER], ids=["createRuntime", "createContainer"]
)
def test_a_users_volume(
    broker: Broker, alice: World, launcher: Path, runtime: Runtime, file: Path
) -> None:
    alice.remove_hooks()
    alice.install_hook(launcher, file)
    volume = a_volume(alice, f"volume-{runtime}-{file.stem}")
    mounted = ("--volume", f"{volume}:/data:ro")
    asked = ASK | io(path="/data/bpf")
    done = alice.run(runtime, *mounted, annotations=asked, command=["true"], capabilities=["BPF"])
    refused(done, runtime)
    assert list(volume.iterdir()) == []
    show = ["cat", "/proc/mounts"]
    # The root filesystem is the container's own at either stage.
    done = alice.run(
        runtime, *mounted, annotations=ASK | io(path="/bpf"), command=show, capabilities=["BPF"]
    )
    assert " /bpf bpf " in done.stdout, done.stderr
    done = alice.run(
        runtime,
        *("--tmpfs", "/run"),
        annotations=ASK | io(path="/run/bpf"),
        command=show,
        capabilities=["BPF"],
    )
    if file == CREATE_RUNTIME:
        assert " /run/bpf bpf " in done.stdout, done.stderr
    else:
        # In the container's user namespace the volume's owner can't be seen.
        refused(done, runtime)
