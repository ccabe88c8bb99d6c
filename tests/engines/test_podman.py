"""The main job with real podman on crun and on runc: an annotation becomes a token that works."""

import json
import re
import subprocess
import threading

import pytest

from oci_bpf_hook import errors
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime
from tests.support.podman import World
from tests.support.scratch import bpf_mounts, io

BPFFS = "/sys/fs/bpf"

pytestmark = pytest.mark.parametrize("runtime", RUNTIMES)


MINIMAL = io(
    delegate_cmds="map_create:prog_load",
    delegate_maps="hash",
    delegate_progs="xdp",
    delegate_attachs="xdp",
)
MOUNTS = ["cat", "/proc/mounts"]


def bpffs_line(done: CompletedProcess, path: str = BPFFS) -> str:
    """The container's own line for the bpffs that it sees at `path`."""
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if f" {path} bpf " in line]
    assert len(lines) == 1, done.stdout
    return lines[0]


def probe(done: CompletedProcess) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def test_maps_and_programs_that_were_delegated_and_no_others(
    world: World, runtime: Runtime
) -> None:
    script = (
        f"probe map {BPFFS} 1; probe map {BPFFS} 2; "
        f"probe prog {BPFFS} 6 37; probe prog {BPFFS} 6 0; probe prog {BPFFS} 3 0"
    )
    done = world.run(runtime, annotations=MINIMAL, command=["sh", "-c", script])
    assert done.returncode == 0, done.stderr
    results = [json.loads(line)["result"] for line in done.stdout.splitlines()]
    assert results == ["ok", "EPERM", "ok", "EPERM", "EPERM"]


def test_the_mount(world: World, runtime: Runtime) -> None:
    command = ["sh", "-c", f"cat /proc/mounts; stat -c 'owner %u:%g mode %a' {BPFFS}"]
    done = world.run(runtime, annotations=MINIMAL, command=command)
    options = bpffs_line(done).split()[3].split(",")
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(options)
    assert [item for item in options if item.startswith("delegate_")] == [
        "delegate_cmds=map_create:prog_load",
        "delegate_maps=hash",
        "delegate_progs=xdp",
        "delegate_attachs=xdp",
    ]
    assert "owner 0:0 mode 1777" in done.stdout


def test_the_example_of_incus(world: World, runtime: Runtime) -> None:
    # doc/explanation/bpf-tokens.md of Incus; the line is the one it shows, in delegate_* options.
    done = world.run(
        runtime,
        annotations=io(
            delegate_cmds="map_create,obj_get,link_create",
            delegate_maps="hash,array,devmap,queue,stack",
            delegate_progs="socket_filter,kprobe,cgroup_sysctl",
            delegate_attachs="any",
        ),
        command=MOUNTS,
    )
    shown = bpffs_line(done).split()[3]
    assert shown.endswith(
        "delegate_cmds=map_create:obj_get:link_create,"
        "delegate_maps=hash:array:devmap:queue:stack,"
        "delegate_progs=socket_filter:kprobe:cgroup_sysctl,"
        "delegate_attachs=any"
    )


@pytest.mark.parametrize(
    ("wrapper", "token"),
    [
        ([], "ok"),
        (["probe", "exec-as", "1000"], "ok"),
        (["probe", "drop-bpf"], "EPERM"),
    ],
    ids=["root", "ambient", "without-cap-bpf"],
)
def test_who_can_make_a_token(
    world: World, runtime: Runtime, wrapper: list[str], token: str
) -> None:
    command = [*wrapper, "probe", "token", BPFFS]
    assert probe(world.run(runtime, annotations=MINIMAL, command=command))["token"] == token


def test_cap_bpf_is_enough_for_a_map(world: World, runtime: Runtime) -> None:
    command = ["probe", "map", BPFFS, "1"]
    done = world.run(runtime, annotations=MINIMAL, command=command, capabilities=["BPF"])
    assert probe(done)["result"] == "ok"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--read-only"],
        ["--device", "/dev/kmsg"],
        ["--volume", "/sys:/sys:ro"],
        ["--network", "host"],
        ["--security-opt", "no-new-privileges"],
    ],
    ids=lambda arguments: arguments[0].strip("-"),
)
def test_kinds_of_containers(world: World, runtime: Runtime, arguments: list[str]) -> None:
    command = ["sh", "-c", f"cat /proc/mounts; probe map {BPFFS} 1"]
    done = world.run(runtime, *arguments, annotations=MINIMAL, command=command)
    # Where /sys is the host's, its own bpffs may lie below ours.
    shown = [line for line in done.stdout.splitlines() if f" {BPFFS} bpf " in line]
    assert shown[-1].endswith("delegate_attachs=xdp 0 0"), done.stderr
    assert '"result":"ok"' in done.stdout.replace(" ", "")


def test_another_path_and_mode(world: World, runtime: Runtime) -> None:
    script = "cat /proc/mounts; ls -land /run/bpf /run/bpf/own; probe map /run/bpf/own 1"
    annotations = MINIMAL | io(path="/run/bpf/own", mode="0750")
    done = world.run(runtime, annotations=annotations, command=["sh", "-c", script])
    assert "mode=750" in bpffs_line(done, "/run/bpf/own")
    assert re.search(r"drwxr-xr-x +3 +0 +0 .* /run/bpf\n", done.stdout)
    assert re.search(r"drwxr-x--- +2 +0 +0 .* /run/bpf/own\n", done.stdout)
    assert '"result":"ok"' in done.stdout.replace(" ", "")


@pytest.mark.parametrize("propagation", ["rshared", "rslave", "rprivate"])
def test_a_volume_that_shares_mounts(world: World, runtime: Runtime, propagation: str) -> None:
    """Whatever a runtime makes of it: what the container gets doesn't appear on the host."""
    volume = world.directory / f"volume-{runtime}-{propagation}"
    volume.mkdir()
    volume.chmod(0o777)
    (volume / "bpf").mkdir()
    for arguments in (("--bind", volume), ("--make-shared",)):
        subprocess.run(["mount", *arguments, volume], check=True)
    before = bpf_mounts()
    done = world.run(
        runtime,
        *("--volume", f"{volume}:/volume:{propagation}"),
        annotations=MINIMAL | io(path="/volume/bpf"),
        command=MOUNTS,
    )
    assert bpf_mounts() == before
    if done.returncode:
        # crun's volume is a peer of the host's own mount.
        assert (runtime, propagation) == ("crun", "rshared")
        refusal(done, runtime, errors.MOUNT_FAILED)
        assert list((volume / "bpf").iterdir()) == []
    else:
        bpffs_line(done, "/volume/bpf")


def test_restart_and_exec(world: World, runtime: Runtime) -> None:
    mapping = "0:100000:65536"
    annotations = [
        part for key, text in MINIMAL.items() for part in ("--annotation", f"{key}={text}")
    ]
    common = ["--uidmap", mapping, "--gidmap", mapping, "--cap-add", "BPF", "--pull", "never"]
    world.podman(
        *("run", "--detach", "--name", f"again-{runtime}", *common, *annotations),
        *("--cgroup-parent", f"/{world.cgroup_parent}"),
        *("localhost/oci-bpf-hook-test:latest", "sh", "-c", "trap exit TERM; sleep 1000 & wait"),
        runtime=runtime,
    )
    try:
        for _ in range(2):
            done = world.podman("exec", f"again-{runtime}", "cat", "/proc/mounts", runtime=runtime)
            bpffs_line(done)
            done = world.podman(
                "exec", f"again-{runtime}", "probe", "map", BPFFS, "1", runtime=runtime
            )
            assert probe(done)["result"] == "ok"
            world.podman("restart", "--time", "5", f"again-{runtime}", runtime=runtime)
    finally:
        # conmon's own clean-up may be at it, and what both leave the world takes away.
        name = f"again-{runtime}"
        world.podman("rm", "--force", "--time", "0", name, runtime=runtime, check=False)


def test_ten_at_once(world: World, runtime: Runtime) -> None:
    done: list[CompletedProcess] = []

    def start() -> None:
        done.append(
            world.run(
                runtime, annotations=MINIMAL, command=["probe", "map", BPFFS, "1"], timeout=120
            )
        )

    threads = [threading.Thread(target=start) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [probe(one)["result"] for one in done] == ["ok"] * 10


def test_in_a_pod(world: World, runtime: Runtime) -> None:
    name = f"pod-{runtime}"
    mapping = "0:100000:65536"
    world.podman(
        *("pod", "create", "--name", name, "--network", "none", "--uidmap", mapping),
        # The pod cgroup that podman 4.3 makes with cgroupfs lets nobody open a device.
        "--share-parent=false",
        *("--gidmap", mapping, "--cgroup-parent", f"/{world.cgroup_parent}"),
        runtime=runtime,
    )
    try:
        done = world.run(
            runtime,
            *("--pod", name),
            annotations=MINIMAL,
            command=["sh", "-c", f"cat /proc/mounts; probe map {BPFFS} 1"],
            userns=False,
        )
        assert "delegate_maps=hash" in bpffs_line(done)
        assert '"result":"ok"' in done.stdout.replace(" ", "")
    finally:
        world.podman("pod", "rm", "--force", "--time", "0", name, runtime=runtime, check=False)


def refusal(done: CompletedProcess, runtime: Runtime, code: int) -> None:
    """podman says which exit code the hook had; runc's words are there too."""
    assert done.returncode != 0
    pattern = rf"\(exit code: {code}\)" if runtime == "crun" else rf"exit status {code}\b"
    assert re.search(pattern, done.stderr), done.stderr
    assert done.stdout == ""


def test_no_user_namespace(world: World, runtime: Runtime) -> None:
    done = world.run(runtime, annotations=MINIMAL, command=["true"], userns=False)
    refusal(done, runtime, errors.NO_USER_NAMESPACE)
    if runtime == "runc":
        assert "--userns=auto" in done.stderr


@pytest.mark.parametrize(
    ("annotations", "code"),
    [
        (io(delegate_cmd="any"), errors.BAD_ANNOTATION),
        ({"io.bpffs.": "any"}, errors.BAD_ANNOTATION),
        (io(**{"delegate_cmds/": "any"}), errors.BAD_ANNOTATION),
        (io(**{"/web": "any"}), errors.BAD_ANNOTATION),
        (io(profile="xdp"), errors.UNKNOWN_NAME),
        (io(delegate_cmds="map_crate"), errors.UNKNOWN_NAME),
        (io(delegate_cmds="any", path="/bin/sh"), errors.MOUNT_FAILED),
        (io(delegate_cmds="any", path="/proc/self/root/tmp"), errors.MOUNT_FAILED),
    ],
    ids=["key", "no-key", "no-name", "no-key-but-a-name", "profile", "name", "file", "magic-link"],
)
def test_refusals(world: World, runtime: Runtime, annotations: dict[str, str], code: int) -> None:
    refusal(world.run(runtime, annotations=annotations, command=["true"]), runtime, code)


def test_a_container_without_annotations_is_left_alone(world: World, runtime: Runtime) -> None:
    done = world.run(runtime, annotations={"io.example": "x"}, command=MOUNTS)
    assert done.returncode == 0
    assert " bpf " not in done.stdout


def test_key_with_the_containers_name(world: World, runtime: Runtime) -> None:
    # podman has no annotation with the name of a container; conmon's command line has it.
    annotations = {f"{key}/mine": text for key, text in MINIMAL.items()}
    done = world.run(runtime, "--name", "mine", annotations=annotations, command=MOUNTS)
    bpffs_line(done)
    done = world.run(runtime, "--name", "other", annotations=annotations, command=MOUNTS)
    assert done.returncode == 0, done.stderr
    assert " bpf " not in done.stdout


def test_on_unknown_drop(world: World, runtime: Runtime) -> None:
    annotations = io(delegate_cmds="map_create:prog_assoc_struct_ops", on_unknown="drop")
    done = world.run(runtime, annotations=annotations, command=MOUNTS)
    # Kernels from 7.0 on have it; test_hook has a kernel that certainly lacks it.
    assert "delegate_cmds=map_create" in bpffs_line(done)
