"""CDI end to end: real podman gives a container a device, and with it the profile."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.errors import REFUSED, UNKNOWN_NAME
from tests.support.command import command
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime
from tests.support.podman import IMAGE, World
from tests.support.policy import UNCONFINED, audited, in_force
from tests.support.scratch import LAUNCHER, io

CDI = Path("/etc/cdi/bpffs.io-profile.json")
MOUNTS = ["cat", "/proc/mounts"]
DEVICE = ["--device", "bpffs.io/profile=xdp"]

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES)


@pytest.fixture
def devices() -> Iterator[None]:
    """The devices of the built-in policy's profiles, in the session's own /etc."""
    with in_force(UNCONFINED):
        done = command("cdi", "generate", "--hook", LAUNCHER)
        assert done.returncode == 0, done.stderr
        yield
    CDI.unlink(missing_ok=True)


@pytest.fixture
def hookless(world: World) -> World:
    """podman with no hooks directory's hook, as Docker has none."""
    world.remove_hooks()
    return world


def refusal(done: CompletedProcess, runtime: Runtime, code: int) -> None:
    pattern = rf"\(exit code: {code}\)" if runtime == "crun" else rf"exit status {code}\b"
    assert done.returncode != 0
    assert re.search(pattern, done.stderr), done.stderr


@pytest.mark.usefixtures("devices")
def test_a_device(hookless: World, runtime: Runtime) -> None:
    script = "cat /proc/mounts; probe map /sys/fs/bpf 1; probe prog /sys/fs/bpf 6 37; "
    script += "probe prog /sys/fs/bpf 3 0"
    done = hookless.run(runtime, *DEVICE, command=["sh", "-c", script])
    assert done.returncode == 0, done.stderr
    assert "delegate_progs=socket_filter:xdp," in done.stdout
    results = [
        json.loads(line)["result"] for line in done.stdout.splitlines() if '"result"' in line
    ]
    assert results == ["ok", "ok", "EPERM"]
    assert audited()[-1]["rule"] == "devices"


@pytest.mark.usefixtures("devices")
def test_annotations_don_t_widen_it(hookless: World, runtime: Runtime) -> None:
    everything = io(delegate_cmds="any", delegate_progs="any", delegate_attachs="any")
    done = hookless.run(runtime, *DEVICE, annotations=everything, command=MOUNTS)
    assert done.returncode == 0, done.stderr
    assert "delegate_cmds=map_create:prog_load:btf_load," in done.stdout


@pytest.mark.usefixtures("devices")
def test_annotations_with_a_hook_of_their_own(hookless: World, runtime: Runtime) -> None:
    """Each is decided for itself: one by the device, one by the rules about annotations."""
    hookless.install_hook(LAUNCHER, LAUNCHER.with_suffix(".json"))
    before = len(audited())
    annotations = io(profile="tc", path="/run/bpf")
    done = hookless.run(runtime, *DEVICE, annotations=annotations, command=MOUNTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("delegate_cmds=") == 2
    rules = sorted(line["rule"] for line in audited()[before:])
    assert rules == ["devices", "own-namespaces"]
    # The same from both is one.
    done = hookless.run(runtime, *DEVICE, annotations=io(profile="xdp"), command=MOUNTS)
    assert done.stdout.count("delegate_cmds=") == 1, done.stderr
    # What the rules don't allow, the device doesn't bring along.
    done = hookless.run(runtime, *DEVICE, annotations=io(profile="tracing"), command=MOUNTS)
    refusal(done, runtime, REFUSED)


@pytest.mark.usefixtures("devices")
def test_another_path_is_told_to_libbpf(hookless: World, runtime: Runtime) -> None:
    command("cdi", "generate", "--hook", LAUNCHER, "--path", "/run/bpf")
    script = 'cat /proc/mounts; probe map "$LIBBPF_BPF_TOKEN_PATH" 1'
    done = hookless.run(runtime, *DEVICE, command=["sh", "-c", script])
    assert " /run/bpf bpf " in done.stdout, done.stderr
    assert '"result":"ok"' in done.stdout.replace(" ", "")


@pytest.mark.usefixtures("devices")
def test_the_policy_decides(hookless: World, runtime: Runtime) -> None:
    with in_force("version: 1\nrules: []\n"):
        refusal(hookless.run(runtime, *DEVICE, command=MOUNTS), runtime, UNKNOWN_NAME)
    text = (
        "version: 1\nprofiles: {xdp: {delegate_cmds: [map_create], delegate_maps: [hash]}}\n"
        "rules:\n- {name: not-there, match: {cdi: '*', host_network: true}, deny: not there}\n"
        "- {name: here, match: {cdi: xdp}, allow: {profiles: [xdp]}}\n"
    )
    with in_force(text):
        done = hookless.run(runtime, *DEVICE, command=MOUNTS)
        assert "delegate_cmds=map_create,delegate_maps=hash " in done.stdout, done.stderr
        assert audited()[-1]["rule"] == "here"
        refusal(hookless.run(runtime, *DEVICE, "--network=host", command=MOUNTS), runtime, REFUSED)


@pytest.mark.usefixtures("devices")
def test_beside_a_real_device(hookless: World, runtime: Runtime) -> None:
    """With a device node crun says that the bundle is /, and the annotations are none of ours."""
    done = hookless.run(runtime, *DEVICE, "--device", "/dev/fuse", command=MOUNTS)
    assert "delegate_progs=socket_filter:xdp," in done.stdout, done.stderr


# The first podman whose builds know CDI devices; an older one looks for a file of that name.
BUILDS = (5, 1)


@pytest.mark.usefixtures("devices")
def test_a_build(hookless: World, runtime: Runtime) -> None:
    """What a RUN of a build gets by a device: a build has no annotations."""
    context = hookless.directory / "context"
    context.mkdir(exist_ok=True)
    file = context / "Containerfile"
    file.write_text(f"FROM {IMAGE}\nRUN cat /proc/mounts; probe map /sys/fs/bpf 1\n")
    mapping = ("--userns-uid-map=0:100000:65536", "--userns-gid-map=0:100000:65536")
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000", "--network=none")
    parent = f"--cgroup-parent=/{hookless.cgroup_parent}"
    done = hookless.podman(
        *("build", "--pull-never", "--no-cache", "--isolation=oci", "--cap-add=BPF", parent),
        *(*DEVICE, *mapping, *limits, str(context)),
        runtime=runtime,
        check=False,
    )
    said = hookless.podman("version", "--format={{.Client.Version}}").stdout
    if tuple(map(int, said.split(".")[:2])) < BUILDS:
        assert done.returncode != 0
        assert re.search(r"bpffs\.io/profile=xdp: no such file", done.stderr), done.stderr
    else:
        assert "delegate_progs=socket_filter:xdp," in done.stdout, done.stderr
        assert '"result":"ok"' in done.stdout.replace(" ", "")
