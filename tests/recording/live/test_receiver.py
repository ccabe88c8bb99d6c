"""Recording containers: through podman, and whatever else connects to the socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.errors import HookError
from oci_bpf_hook.recording.live.receiver import Receiver, profile
from tests.support import places, recorder
from tests.support.engines import FIRST_ID, ID_COUNT, RUNTIMES, Runtime
from tests.support.podman import IMAGE, World
from tests.support.policy import EVERYTHING, audited, in_force
from tests.support.scratch import LAUNCHER

HOOK_JSON = LAUNCHER.with_suffix(".json")
RECORDING = f"{EVERYTHING}      record: true\n"
# By their numbers, as the probe takes them.
HASH, RINGBUF = "1", "27"
RUN = Path("/run/oci-bpf-hook/record")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as world:
        world.install_hook(LAUNCHER, HOOK_JSON)
        yield world


def podman(world: World, runtime: Runtime) -> dict[str, str]:
    """The environment in which plain podman uses this world and this runtime."""
    lines = Path(world.environment["CONTAINERS_CONF"]).read_text().splitlines()
    lines.insert(lines.index("[engine]") + 1, f'runtime = "{runtime}"')
    conf = world.directory / f"{runtime}.conf"
    conf.write_text("\n".join(lines) + "\n")
    return {**world.environment, "CONTAINERS_CONF": str(conf)}


def container(
    world: World,
    runtime: Runtime,
    *command: str,
    more: Sequence[str] = ("--rm",),
    env: Mapping[str, str] | None = None,
) -> recorder.Recorded:
    ids = f"0:{FIRST_ID}:{ID_COUNT}"
    return recorder.record(
        *("--uidmap", ids, "--gidmap", ids, "--cgroup-parent", f"/{world.cgroup_parent}"),
        *("--cap-add=BPF", "--cap-add=NET_ADMIN", *more, IMAGE, *command),
        options=["--container", "--seccomp", str(world.seccomp)],
        env={**podman(world, runtime), **(env or {})},
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container(world: World, runtime: Runtime) -> None:
    with in_force(RECORDING):
        done = container(world, runtime, "probe", "map", "/sys/fs/bpf", RINGBUF)
    assert (done.code, done.stderr) == (0, "")
    assert done.counts("token_create") == {"ok": 1}
    (made,) = (one for one in done.recording["calls"] if one["cmd"] == "map_create")
    assert (made["map_type"], made["token"], made["result"]) == ("ringbuf", True, "ok")
    assert "delegate_maps: ringbuf" in done.needed
    assert list(RUN.iterdir()) == []


def test_beside_precreate(world: World) -> None:
    """The hook there gives it the capability, and leaves bpf(2) to whoever listens."""
    shipped = LAUNCHER.parents[1] / "contrib" / "podman" / "oci-bpf-hook-precreate.json"
    installed = world.install_hook(LAUNCHER, shipped)
    ids = f"0:{FIRST_ID}:{ID_COUNT}"
    try:
        with in_force(RECORDING):
            done = recorder.record(
                *("--uidmap", ids, "--gidmap", ids, "--cgroup-parent", f"/{world.cgroup_parent}"),
                *("--rm", IMAGE, "probe", "map", "/sys/fs/bpf", HASH),
                options=["--container"],
                env=podman(world, "crun"),
            )
    finally:
        installed.unlink()
    assert (done.code, done.stderr) == (0, "")
    assert done.counts("token_create") == {"ok": 1}
    (line,) = audited()[-1:]
    assert line["granted"]["delegate_progs"] == "any"
    assert line["requested"].keys() == {"io.bpffs.record"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_only_where_the_policy_allows_it(world: World, runtime: Runtime) -> None:
    done = container(world, runtime, "probe", "map", "/sys/fs/bpf", RINGBUF)
    assert done.code == 126
    assert done.recording["calls"] == []
    (line,) = audited()[-1:]
    assert (line["outcome"], line["rule"]) == ("refused", "everything")
    (problem,) = line["problems"]
    assert 'rule "everything" doesn\'t allow recording' in problem
    assert "record: true" in problem


def test_its_exit_code(world: World) -> None:
    with in_force(RECORDING):
        assert container(world, "crun", "sh", "-c", "exit 42").code == 42


def test_root_runs_the_podman_that_is_installed(world: World, tmp_path: Path) -> None:
    """Whatever PATH a user's environment has brought along."""
    other = tmp_path / "podman"
    other.write_text("#!/bin/sh\nexit 41\n")
    other.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with in_force(RECORDING):
        assert container(world, "crun", "sh", "-c", "exit 42", env=path).code == 42


def test_its_exit_code_where_nobody_waits() -> None:
    """Started with SIGCHLD ignored, as some services do; and nothing is left of the engine's."""
    engine = """
import signal, sys
from pathlib import Path
from oci_bpf_hook.recording.live.receiver import Receiver, run
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Receiver(Path(sys.argv[1])) as receiver:
    print(run(["sh", "-c", "exit 7"], receiver, print))
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        words = [sys.executable, "-c", engine, f"{directory}/sock"]
        done = subprocess.run(words, cwd=places.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "(7, '')\n"


def test_detached_and_entered(world: World) -> None:
    """A container that goes on, and what is run in it meanwhile."""
    environment = podman(world, "crun")
    name = f"recorded-{os.getpid()}"
    ids = f"0:{FIRST_ID}:{ID_COUNT}"
    saved = world.directory / "detached.json"
    command = recorder.argv(
        *("record", "--container", "--seccomp", str(world.seccomp), "--save", str(saved), "--"),
        *("--uidmap", ids, "--gidmap", ids, "--cgroup-parent", f"/{world.cgroup_parent}"),
        *("--cap-add=BPF", "--detach", "--name", name, IMAGE, "sleep", "1000"),
    )
    with (
        in_force(RECORDING),
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout
        identity = process.stdout.readline()
        inside = world.podman("exec", name, "probe", "map", "/sys/fs/bpf", HASH, check=False)
        world.podman("rm", "--force", "--time", "0", name, check=False)
        assert process.wait() == 0
    assert len(identity) == 65, "podman's answer is the container's id"
    assert '"ok"' in inside.stdout
    calls = json.loads(saved.read_text())["calls"]
    assert ("map_create", "hash", "ok") in {
        (one["cmd"], one.get("map_type"), one["result"]) for one in calls
    }


def test_interrupted(world: World) -> None:
    """^C is the container's to answer, as it is without us."""
    saved = world.directory / "interrupted.json"
    ids = f"0:{FIRST_ID}:{ID_COUNT}"
    script = "trap 'exit 7' INT; echo ready; while :; do sleep 0.1; done"
    command = recorder.argv(
        *("record", "--container", "--seccomp", str(world.seccomp), "--save", str(saved), "--"),
        *("--uidmap", ids, "--gidmap", ids, "--cgroup-parent", f"/{world.cgroup_parent}"),
        *("--rm", "--cap-add=BPF", IMAGE, "sh", "-c", script),
    )
    with (
        in_force(RECORDING),
        subprocess.Popen(
            command,
            env={**os.environ, **podman(world, "crun")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as process,
    ):
        assert process.stdout
        ready = process.stdout.readline()
        # podman hands it on from some time after the container's first words: until then, again.
        while process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
        assert process.stderr
        told = process.stderr.read()
    assert ready == "ready\n"
    assert process.returncode == 7, told
    assert "Traceback" not in told
    assert json.loads(saved.read_text())["exit"] == 7


def test_listening_for_any_engine(world: World) -> None:
    """An engine whose profile names the socket, here podman, and no word of ours to it."""
    directory = world.directory / "listen"
    path, saved = directory / "listener.sock", world.directory / "listened.json"
    with subprocess.Popen(
        recorder.argv("record", "--listen", str(path), "--save", str(saved), "--format", "json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        assert process.stderr.readline().endswith(f"{path}\n")
        seccomp = directory / "seccomp.json"
        seccomp.write_text(json.dumps(profile(world.seccomp.read_bytes(), path)))
        codes = []
        for policy in (EVERYTHING, RECORDING):
            with in_force(policy):
                done = world.run(
                    "runc",
                    f"--security-opt=seccomp={seccomp}",
                    annotations={"io.bpffs.record": "x"},
                    command=["probe", "map", "/sys/fs/bpf", HASH],
                )
                codes.append(done.returncode)
        process.send_signal(signal.SIGINT)
        text = process.stderr.read()
    # To be recorded takes the policy's leave, whoever listens.
    assert codes == [126, 0]
    assert process.returncode == 0
    assert json.loads(text)["delegate_maps"] == ["hash"]
    assert not path.exists()


@pytest.mark.parametrize(
    ("message", "fds"),
    [
        (b"hello", 0),
        (b"{}", 0),
        (b'{"fds": ["seccompFd"]}', 0),
        (b'{"fds": ["other"]}', 1),
        (b'{"fds": ["seccompFd"]}', 2),
        (b'{"fds": "seccompFd"}', 1),
        (b"[]", 1),
        (b"{" * 2_000_000, 0),
        (b"[" * 100_000, 0),
    ],
)
def test_who_is_no_runtime(tmp_path: Path, message: bytes, fds: int) -> None:
    path = tmp_path / "sock"
    before = os.listdir("/proc/self/fd")
    with Receiver(path) as receiver:
        code = (
            "import os, socket, sys\n"
            f"sock = socket.socket(socket.AF_UNIX); sock.connect({str(path)!r})\n"
            "data = sys.stdin.buffer.read()\n"
            f"fds = [os.open('/dev/null', 0) for _ in range({fds})]\n"
            "socket.send_fds(sock, [data[:100]], fds) if fds else sock.send(data[:100])\n"
            "try:\n    sock.sendall(data[100:])\nexcept OSError:\n    pass\n"
        )
        with subprocess.Popen(["/usr/bin/python3", "-c", code], stdin=subprocess.PIPE) as process:
            assert process.stdin
            process.stdin.write(message)
            process.stdin.close()
            with pytest.raises(HookError, match="this isn't a runtime"):
                receiver.accept()
    assert os.listdir("/proc/self/fd") == before
    assert not path.exists()


def test_who_goes_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with Receiver(path) as receiver:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
        assert receiver.accept() is None


def test_the_socket_is_roots_alone(tmp_path: Path) -> None:
    path = tmp_path / "above" / "made" / "sock"
    before = os.umask(0o077)
    with Receiver(path):
        assert os.umask(before) == 0o077
        # Where others have sockets too.
        assert path.parent.parent.stat().st_mode & 0o777 == 0o755
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o077 == 0
        with pytest.raises(HookError, match="can't be made: Address already in use"):
            Receiver(path).fileno()


def test_the_socket_of_one_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Receiver(path):
        assert path.is_socket()
    path.write_text("no socket")
    with pytest.raises(HookError, match="can't be made: Address already in use"):
        Receiver(path).fileno()
    assert path.read_text() == "no socket"


@pytest.mark.parametrize("text", ["{", "{}", '{"ociVersion": "1.0"}', '{"syscalls": []}'])
def test_a_file_that_is_no_profile(tmp_path: Path, text: str) -> None:
    """Before podman is asked to start anything with it."""
    base = tmp_path / "base.json"
    base.write_text(text)
    done = recorder.command("record", "--container", "--seccomp", str(base), "--", IMAGE, "true")
    assert done.returncode == 2
    assert f"oci-bpf-hook: {base}: " in done.stderr


def test_profile() -> None:
    base: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read", "bpf"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_BPF"]}},
        ],
    }
    assert profile(json.dumps(base).encode(), Path("/run/x.sock")) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "listenerPath": "/run/x.sock",
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["bpf"], "action": "SCMP_ACT_NOTIFY"},
        ],
    }
    older = {"syscalls": [{"name": "read", "action": "A"}, {"name": "bpf", "action": "A"}]}
    assert profile(json.dumps(older).encode(), Path("x"))["syscalls"] == [
        {"name": "read", "action": "A"},
        {"names": ["bpf"], "action": "SCMP_ACT_NOTIFY"},
    ]
    rules = (b'["read"]', b'[{"action": "A"}]', b'[{"names": 7}]', b"[null]", b'[{"name": null}]')
    for bad in (b"", b"[]", b"{}", *(b'{"syscalls": %b}' % one for one in rules)):
        with pytest.raises(ValueError, match=r"."):
            profile(bad, Path("/run/x.sock"))
