"""containers.py: real containers of podman's, by /proc and its API, and others by what they are."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oci_bpf_hook.errors import BAD_STATE, USAGE, HookError
from oci_bpf_hook.running import containers
from tests.support.conmon import (
    NOBODYS,
    WITHOUT_A_USER_NAMESPACE,
    conmon,
    impostor,
    watched,
)
from tests.support.engines import RUNTIMES, Runtime, make_work_directory, remove_work_directory
from tests.support.places import ROOT
from tests.support.podman import IMAGE, World, started
from tests.support.processes import children
from tests.support.scratch import Scratch


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_podman_s_by_proc(world: World, runtime: Runtime) -> None:
    with started(world, "known", runtime) as identity:
        found = containers.find("known")
        assert (found.engine, found.name, found.id) == ("podman", "known", identity)
        assert found.runtime is not None
        assert found.runtime.endswith(runtime)
        pid = world.podman("inspect", "--format", "{{.State.Pid}}", "known").stdout
        assert found.pid == int(pid)
        assert containers.find(identity) == found
        assert containers.find(identity[:12]) == found
        assert containers.of_process(found.pid) == found
        assert containers.first_process(found) == "sh"
    with pytest.raises(HookError) as caught:
        containers.find("known")
    assert caught.value.code == USAGE


def test_two_that_may_be_meant(world: World) -> None:
    with started(world, "meant-1"), started(world, "meant-2") as identity:
        with pytest.raises(HookError) as caught:
            containers.find("meant-3")
        assert "no running container is called" in str(caught.value)
        # Others may run here too.
        assert {"meant-1", "meant-2"} <= set(re.split("[ ,]+", str(caught.value)))
        # Every id begins with nothing.
        with pytest.raises(HookError, match=r"meant-1 \(pid \d+\).*; choose one by --pid"):
            containers.find("")
        assert containers.find(identity).name == "meant-2"


def test_podman_s_api(world: World) -> None:
    url = f"unix://{world.directory}/podman.sock"
    # In a process of its own: podman-py leaves its socket to the garbage.
    code = (
        "from oci_bpf_hook.running import containers\n"
        "one = containers.find('by-api')\n"
        "print(one.engine, one.id, one.image)\n"
    )

    def told() -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "CONTAINER_HOST": url},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()

    with started(world, "by-api") as identity:
        assert told() == ["podman", identity, "None"]
        with world.service(url):
            assert told() == ["podman", identity, IMAGE]


def test_a_process_of_nobody_s() -> None:
    with Scratch() as scratch:
        found = containers.of_process(scratch.init.pid)
        assert (found.engine, found.name, found.id, found.image) == (None,) * 4
        assert found.label == f"pid {scratch.init.pid}"
        assert found.user == os.stat(f"/proc/{scratch.init.pid}/ns/user").st_ino
        assert found in containers.containers()
    with pytest.raises(HookError) as caught:
        containers.of_process(scratch.init.pid)
    assert caught.value.code == BAD_STATE


def test_a_watcher_within_a_container_is_not_believed() -> None:
    """Who is in a container may run something that is called conmon, and says what it likes."""
    for prefix, believed in (((), False), (NOBODYS, True)):
        with Scratch(prefix=prefix) as scratch, watched(scratch, "web", "a" * 64) as child:
            found = containers.of_process(child)
            assert (found.name == "web") == believed
            assert (found.engine == "podman") == believed
            assert found.runtime is None


def test_a_user_s_container_is_not_taken_for_ours(world: World) -> None:
    """Its name and id are what that user says, and what is older comes first."""
    with Scratch(prefix=NOBODYS) as scratch, started(world, "twin") as identity:
        for name, its_id in (("twin", identity), (identity[:12], "b" * 64)):
            with watched(scratch, name, its_id) as child:
                assert (containers.of_process(child).name, containers.of_process(child).id) == (
                    name,
                    its_id,
                )
                for given in ("twin", identity, identity[:12]):
                    found = containers.find(given)
                    assert (found.name, found.id) == ("twin", identity)
                    assert found.pid != child


def test_two_users_with_one_name() -> None:
    other = ("setpriv", "--reuid=61995", "--regid=61995", "--clear-groups")
    with (
        Scratch(prefix=NOBODYS) as one,
        Scratch(prefix=other) as two,
        watched(one, "same", "a" * 64) as first,
        watched(two, "same", "a" * 64) as second,
        pytest.raises(HookError) as caught,
    ):
        containers.find("same")
    assert f"same (pid {first})" in str(caught.value)
    assert f"same (pid {second})" in str(caught.value)


def test_a_program_of_root_s_that_a_user_runs_is_not_believed(tmp_path: Path) -> None:
    """A set-user-id program runs as root, and who starts it says what its command line is."""
    program = tmp_path / "python3"
    shutil.copy(os.path.realpath(sys.executable), program)
    program.chmod(0o4755)
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o111)
    waits = "import sys; print('ready', flush=True); sys.stdin.read()"
    code = (
        "import os, sys\n"
        "inner = ['unshare', '-U', '-r', '-m', 'sh', '-c', 'kill -STOP $$; cat']\n"
        "pid = os.posix_spawnp(inner[0], inner, os.environ)\n"
        "os.waitid(os.P_PID, pid, os.WSTOPPED)\n"
        "words = ['-n', 'web', '-r', '/usr/bin/crun', '--', 'libpod']\n"
        f"os.execv({str(program)!r}, ['conmon', '-IS', '-c', {waits!r}, *words])\n"
    )
    with subprocess.Popen(
        [*NOBODYS, sys.executable, "-IS", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            assert os.stat(f"/proc/{process.pid}").st_uid == 0
            (child,) = children(process.pid)
            found = containers.of_process(child)
            assert (found.name, found.runtime) == ("web", None)
        finally:
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            process.kill()


@pytest.mark.parametrize("prefix", WITHOUT_A_USER_NAMESPACE, ids=["host-pids", "own-pids"])
def test_a_watcher_in_a_container_without_a_user_namespace_is_not_believed(
    tmp_path: Path, prefix: tuple[str, ...]
) -> None:
    """It is root, in the initial user namespace, and its executable is called conmon."""
    words = ("-n", "web", "-c", "a" * 64, "-r", "/usr/bin/crun", "libpod")
    with impostor(tmp_path, words, prefix) as child:
        found = containers.of_process(child)
        assert (found.name, found.id, found.runtime, found.vouched) == (None, None, None, False)
        with pytest.raises(HookError, match="no running container is called"):
            containers.find("web")


def test_a_watcher_that_isn_t_the_installed_program_is_not_believed(tmp_path: Path) -> None:
    words = ("-n", "web", "-c", "a" * 64, "-r", "/usr/bin/crun", "libpod")
    for program in ("", sys.executable):
        with impostor(tmp_path, words, (), program) as child:
            assert containers.of_process(child).name is None


# Runs what comes next in a root directory that has the host's directories.
ELSEWHERE = """
mount -t tmpfs none "$0"
for name in bin dev lib lib64 proc sbin tmp usr; do
    mkdir "$0/$name"
    mount --rbind "/$name" "$0/$name"
done
mkdir "$0/old"
pivot_root "$0" "$0/old"
cd /
exec "$@"
"""


@pytest.mark.parametrize(
    ("prefix", "believed"),
    [
        # As podman starts it for a container with a user namespace, and systemd for a service with
        # PrivateTmp=.
        (("unshare", "--mount", "--"), True),
        ((), True),
        # With the host's pid namespace and its directories, as what watches over a host may have.
        (WITHOUT_A_USER_NAMESPACE[0], False),
        (("unshare", "--mount", "--pid", "--fork", "--kill-child", "--"), False),
        # With the host's programs in a root directory of its own.
        (("unshare", "--mount", "--", "sh", "-ec", ELSEWHERE, "ROOT"), False),
    ],
    ids=["own-mounts", "host", "confined", "own-pids", "own-root"],
)
def test_the_real_conmon_where_it_is(
    tmp_path: Path, prefix: tuple[str, ...], *, believed: bool
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    directory = tmp_path / "libpod"
    directory.mkdir()
    identity = os.urandom(32).hex()
    where = [word.replace("ROOT", str(root)) for word in prefix]
    with conmon(directory, where, identity) as child:
        found = containers.of_process(child)
    told = ("podman", "web", identity) if believed else (None, None, None)
    assert (found.engine, found.name, found.id) == told
    assert found.vouched is believed


def test_the_real_conmon_of_a_user_s() -> None:
    directory = make_work_directory()
    try:
        os.chown(directory, 61996, 61996)
        with conmon(directory, NOBODYS, "c" * 64) as child:
            found = containers.of_process(child)
            assert (found.name, found.runtime, found.vouched) == ("web", None, False)
    finally:
        remove_work_directory(directory)


def test_a_mount_namespace_more_in_a_container(world: World) -> None:
    """Its name is still that of one."""
    with started(world, "nests", "crun", "--cap-add=SYS_ADMIN"):
        stays = "sleep 1000 >/dev/null 2>&1 </dev/null & echo"
        world.podman("exec", "nests", "unshare", "-m", "sh", "-c", stays)
        pid = world.podman("inspect", "--format", "{{.State.Pid}}", "nests").stdout
        assert [one.name for one in containers.containers()].count("nests") == 2
        assert containers.find("nests").pid == int(pid)


def test_the_host_s_processes_are_no_containers() -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE) as process:
        assert process.pid not in [one.pid for one in containers.containers()]


@pytest.mark.parametrize(
    ("cgroup", "engine", "name", "identity"),
    [
        ("0::/lxc.payload.c1/init.scope", "lxc", "c1", None),
        ("0::/machine.slice/systemd-nspawn@web.service/payload", "nspawn", "web", None),
        (f"0::/kubepods.slice/crio-{'a' * 64}.scope", "cri-o", None, "a" * 64),
        (f"0::/k8s.slice/cri-containerd-{'b' * 64}.scope", "containerd", None, "b" * 64),
        (f"0::/system.slice/docker-{'c' * 64}.scope", "docker", None, "c" * 64),
        (f"0::/docker/{'c' * 64}", "docker", None, "c" * 64),
        (f"0::/machine.slice/libpod-{'d' * 64}.scope/container", "podman", None, "d" * 64),
        ("0::/system.slice/bpf-agent.service", "systemd", "bpf-agent", None),
        (f"0::/kubepods/besteffort/pod1/{'e' * 64}", None, None, "e" * 64),
        # Within a container anything may be made; what is outermost is the engine's.
        (f"0::/libpod-{'d' * 64}.scope/lxc.payload.web", "podman", None, "d" * 64),
        (f"0::/system.slice/x.service/crio-{'a' * 64}", "cri-o", None, "a" * 64),
        ("0::/", None, None, None),
    ],
)
def test_names_of_cgroups(
    cgroup: str, engine: str | None, name: str | None, identity: str | None
) -> None:
    assert containers.by_cgroup(cgroup) == (engine, name, identity, None)
