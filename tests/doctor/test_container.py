"""doctor --container and --pid: each situation arranged for real, and its cause named, only it."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.doctor import container
from oci_bpf_hook.errors import BAD_STATE, DONE, REFUSED, USAGE
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.oci.cdi import TOKEN_PATH
from oci_bpf_hook.running import containers
from tests.running.test_delegations import with_pid
from tests.support.conmon import WITHOUT_A_USER_NAMESPACE, conmon, impostor, watched
from tests.support.policy import UNCONFINED, in_force
from tests.support.scratch import Scratch, io
from tests.support.situation import (
    BEYOND,
    BPFFS,
    SOCKET,
    command,
    delegate,
    findings,
    not_well,
    others,
    with_filter,
    workload,
)

SOCKET_IO = io(**SOCKET)


def causes(pid: int) -> set[str]:
    """The names of what isn't well with the process, each with words and something to do."""
    found = others(findings("--pid", str(pid)))
    assert all(one["why"] and one["fix"] for one in found.values()), found
    return set(found)


def test_nothing_is_wrong() -> None:
    with workload() as (pid, _):
        found = findings("--pid", str(pid))
    (unconfined,) = (one for one in found if one["state"] != "ok")
    assert (unconfined["what"], unconfined["state"]) == (BEYOND, "warning")
    assert unconfined["why"].startswith("socket_filter: nothing confines")
    assert "oci-bpf-hook guard on" in unconfined["fix"]
    assert {"user-namespace", "bpffs", "cap-bpf", "seccomp", "token"} <= {
        one["what"] for one in found
    }


def test_no_cap_bpf() -> None:
    with workload("setpriv", "--bounding-set=-bpf,-sys_admin") as (pid, _):
        assert causes(pid) == {"cap-bpf"}


def test_only_cap_sys_admin() -> None:
    with workload("setpriv", "--bounding-set=-bpf") as (pid, _):
        assert causes(pid) == {"only-sys-admin"}


def test_a_user_without_ambient_capabilities() -> None:
    with workload("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups") as (pid, _):
        assert causes(pid) == {"ambient"}


def test_a_user_with_ambient_capabilities() -> None:
    ambient = ("--inh-caps=+bpf", "--ambient-caps=+bpf")
    with workload("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", *ambient) as (
        pid,
        _,
    ):
        assert causes(pid) == set()


def test_capabilities_that_were_given_up() -> None:
    # capsh has no option to keep the bounding set and drop an effective one, so by the kernel.
    code = (
        "import ctypes, os, struct\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.prctl(28, 1 << 0 | 1 << 1, 0, 0, 0)\n"  # SECBIT_NOROOT: exec gives root nothing.
        "os.execvp('cat', ['cat'])\n"
    )
    with workload(sys.executable, "-IS", "-c", code) as (pid, _):
        assert causes(pid) == {"cap-bpf"}


def test_seccomp() -> None:
    with workload(*with_filter()) as (pid, _):
        found = others(findings("--pid", str(pid)))
    assert set(found) == {"seccomp"}
    assert "returns errno 1" in found["seccomp"]["why"]


def test_a_filter_that_lets_bpf_through() -> None:
    other = with_filter()
    # The number of no call that cat makes.
    other[other.index("-c") + 2] = "100000"
    with workload(*other) as (pid, _):
        found = findings("--pid", str(pid))
    assert others(found) == {}
    assert "its filter lets bpf(2) through" in [one["why"] for one in found]


@pytest.mark.parametrize("own", [("--mount",), ()], ids=["own-mounts", "same-mounts"])
def test_a_nested_user_namespace(own: tuple[str, ...]) -> None:
    with workload("unshare", "--user", "--map-root-user", *own) as (pid, _):
        assert causes(pid) == {"nested-user-namespace"}


def test_no_user_namespace() -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE) as process:
        assert causes(process.pid) == {"no-user-namespace"}


def test_no_mount_namespace() -> None:
    with Scratch(mount=False) as scratch:
        assert causes(scratch.init.pid) == {"no-mount-namespace"}


def test_the_bpffs_of_another_user_namespace() -> None:
    script = f'mount -t bpf -o delegate_cmds=any bpf {BPFFS} && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-ec", script, "sh")
    with Scratch(prefix=prefix) as scratch, scratch.running("unshare", "--net") as process:
        assert causes(process.pid) == {"foreign-bpffs"}


@contextmanager
def elsewhere(*how: str) -> Iterator[int]:
    with Scratch() as scratch:
        delegate(scratch.init.pid, SOCKET, path=str(scratch.root / "opt"))
        how = tuple(word.replace("HERE", str(scratch.root / "opt")) for word in how)
        with scratch.running("unshare", "--net", "--", *how) as process:
            yield process.pid


def test_another_path_and_nobody_says_so() -> None:
    with elsewhere() as pid:
        assert causes(pid) == {"token-path"}


def test_another_path_and_the_environment_says_so() -> None:
    with elsewhere("env", f"{TOKEN_PATH}=HERE") as pid:
        assert causes(pid) == set()


def test_a_link_to_the_place() -> None:
    with Scratch() as scratch:
        delegate(scratch.init.pid, SOCKET, path=str(scratch.root / "opt"))
        link = scratch.outside / "link"
        link.symlink_to(scratch.root / "opt")
        with scratch.running("unshare", "--net", "env", f"{TOKEN_PATH}={link}") as process:
            assert causes(process.pid) == set()


def test_nothing_of_the_container_s_is_a_command() -> None:
    """What is to be pasted has its words in it."""
    hostile = "/x; touch /tmp/owned $(id) `id` '\""
    with elsewhere("env", f"{TOKEN_PATH}={hostile}") as pid:
        (wrong,) = others(findings("--pid", str(pid))).values()
    with Scratch(tree=("sys/fs/bpf", "o;p $(id)")) as scratch:
        delegate(scratch.init.pid, SOCKET, path=str(scratch.root / "o;p $(id)"))
        (wrong,) = others(findings("--pid", str(scratch.init.pid))).values()
        words = shlex.split(wrong["fix"], comments=True)
        assert words[:3] == ["podman", "run", "--env"]
        assert words[3] == f"{TOKEN_PATH}={scratch.root}/o;p $(id)"


def test_an_environment_that_forbids_tokens() -> None:
    with workload("env", f"{TOKEN_PATH}=") as (pid, _):
        assert causes(pid) == {"token-path"}


def test_empty_masks() -> None:
    with Scratch() as scratch:
        delegate(scratch.init.pid, {})
        assert causes(scratch.init.pid) == {"masks-empty"}


def test_no_bpffs() -> None:
    with Scratch() as scratch:
        assert causes(scratch.init.pid) == {"no-bpffs"}


@pytest.mark.parametrize("mode", ["0700", "1777"])
def test_the_host_s_own_bpffs(mode: str) -> None:
    """As podman binds the host's /sys into the containers of a pod with a user namespace."""
    script = f'mount -t bpf -o mode={mode} bpf {BPFFS} && exec "$@"'
    with Scratch(prefix=("unshare", "--mount", "sh", "-ec", script, "sh")) as scratch:
        assert causes(scratch.init.pid) == {"no-bpffs"}
        (wrong,) = others(findings("--pid", str(scratch.init.pid))).values()
        assert "is the host's own, and gives it no token" in wrong["why"]


def test_a_directory_of_a_bpffs() -> None:
    with workload() as (pid, scratch):
        script = f"mkdir {BPFFS}/sub && mount --bind {BPFFS}/sub {BPFFS}"
        assert scratch.enter("sh", "-ec", script).returncode == 0
        assert causes(pid) == {"not-the-root"}


def test_a_mode_that_keeps_the_user_out() -> None:
    user = ("--reuid=1000", "--regid=1000", "--clear-groups")
    ambient = ("--inh-caps=+bpf", "--ambient-caps=+bpf")
    with Scratch() as scratch:
        delegate(scratch.init.pid, SOCKET, mode=0o700)
        with scratch.running("unshare", "--net", "setpriv", *user, *ambient) as process:
            assert causes(process.pid) == {"search-permission"}
            (wrong,) = others(findings("--pid", str(process.pid))).values()
            # Who pastes it does so on the host, where that path is another directory.
            assert BPFFS not in wrong["fix"]


@pytest.mark.parametrize(
    ("program", "attach", "capability"),
    [("xdp", "xdp", "net_admin"), ("raw_tracepoint", "cgroup_inet_ingress", "perfmon")],
)
def test_a_second_capability(program: str, attach: str, capability: str) -> None:
    lists = SOCKET | {"delegate_progs": program, "delegate_attachs": attach}
    lacking = f"--bounding-set=-{capability},-sys_admin"
    with workload("setpriv", lacking, lists=lists) as (pid, _):
        lacks = f"cap-{capability.replace('_', '-')}"
        assert causes(pid) == {lacks}


def test_perf_event_open() -> None:
    with workload(lists=SOCKET | {"delegate_progs": "socket_filter:kprobe"}) as (pid, _):
        assert causes(pid) == {"perf-event-open"}


def test_the_host_s_network_with_xdp() -> None:
    lists = SOCKET | {"delegate_progs": "socket_filter:xdp", "delegate_attachs": "any"}
    with workload(network=True, lists=lists) as (pid, _):
        assert causes(pid) == {"host-network"}
    with workload(network=True) as (pid, _):
        assert causes(pid) == set()
    with workload(lists=lists) as (pid, _):
        assert causes(pid) == set()


def test_the_host_s_cgroups() -> None:
    with workload(lists=SOCKET | {"delegate_progs": "cgroup_skb"}) as (pid, _):
        assert causes(pid) == {"host-cgroup"}


def test_what_reaches_the_kernel() -> None:
    with workload(lists=SOCKET | {"delegate_progs": "struct_ops"}) as (pid, _):
        found = not_well(findings("--pid", str(pid)))
    assert set(found) == {BEYOND}
    assert found[BEYOND]["why"].startswith("struct_ops: ")


def test_without_programs_nothing_reaches_the_kernel() -> None:
    lists = {"delegate_cmds": "map_create", "delegate_maps": "hash"}
    with workload(lists=lists) as (pid, _):
        assert not_well(findings("--pid", str(pid))) == {}


def test_a_libbpf_without_tokens() -> None:
    (library,) = Path("/usr/lib").glob("*/libbpf.so.1.1.*")
    # It gives back what it gets, as cat does, with that library in it.
    code = (
        "import ctypes, os\n"
        f"ctypes.CDLL({str(library)!r})\n"
        "while data := os.read(0, 1):\n"
        "    os.write(1, data)\n"
    )
    with workload(sys.executable, "-IS", "-c", code) as (pid, _):
        assert causes(pid) == {"library"}


def test_a_container_that_the_policy_refused() -> None:
    """It doesn't run; what the hook, or the broker, has put on record says why."""
    with in_force(UNCONFINED), Scratch() as scratch:
        done = scratch.hook(io(delegate_cmds="any"), id="refused-by-policy")
        assert done.returncode == REFUSED
        found = others(findings("--container", "refused-by-policy"))
        assert set(found) == {"refused"}
        assert "because the policy refused it: rule " in found["refused"]["why"]
        assert 'io.bpffs.delegate_cmds "any"' in found["refused"]["why"]
        # Granted since, it isn't what is wrong any more.
        assert scratch.hook(SOCKET_IO, id="refused-by-policy").returncode == DONE
        assert command("doctor", "--container", "refused-by-policy").returncode == USAGE


def test_a_pid_that_is_another_s_by_now() -> None:
    with Scratch() as scratch, Scratch() as other:
        one = with_pid(containers.of_process(scratch.init.pid), other.init.pid)
        (found,) = container.check(one, kernel.enums(KINDS))
    assert (found.what, found.state) == ("container", "problem")
    assert found.why.endswith("has ended meanwhile")


def test_it_ends_meanwhile() -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE) as process:
        process.kill()
        process.wait()
    done = command("doctor", "--pid", str(process.pid))
    assert (done.returncode, done.stdout) == (BAD_STATE, "")
    assert done.stderr.startswith(f"oci-bpf-hook: process {process.pid} can't be looked at")


USER = ("--reuid=61998", "--regid=61998", "--clear-groups")


def test_a_user_s_word_for_their_runtime_is_not_run() -> None:
    """What a user calls conmon names a runtime and a directory, and root is asked about it."""
    with Scratch(prefix=("setpriv", *USER)) as scratch:
        evil = scratch.outside / "evil"
        evil.mkdir()
        ran = evil / "ran"
        crun = evil / "crun"
        crun.write_text(f"#!/bin/sh\ntouch {ran}\necho crun version 1.8.1\n")
        crun.chmod(0o755)
        (evil / "config.json").write_text('{"linux": {"devices": [{"path": "/dev/mine"}]}}')
        with watched(scratch, "web", f"../..{evil}", str(crun)) as child:
            found = containers.of_process(child)
            assert (found.name, found.id, found.runtime) == ("web", None, None)
            assert "crun-device" not in causes(child)
            # One that nobody ever writes to, and whoever reads it waits.
            (evil / "config.json").unlink()
            os.mkfifo(evil / "config.json")
            assert "crun-device" not in causes(child)
        assert not ran.exists()


@contextmanager
def with_a_device(identity: str) -> Iterator[None]:
    """What crun keeps of a container that has a device."""
    directory = Path("/run/crun", identity)
    directory.mkdir(mode=0o700, parents=True)
    try:
        (directory / "config.json").write_text('{"linux": {"devices": [{"path": "/dev/mine"}]}}')
        yield
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("prefix", WITHOUT_A_USER_NAMESPACE, ids=["host-pids", "own-pids"])
def test_a_container_s_word_for_its_runtime_is_not_run(
    tmp_path: Path, prefix: tuple[str, ...]
) -> None:
    """It is root's, without a user namespace, and what it runs is called conmon."""
    ran = tmp_path / "ran"
    crun = tmp_path / "crun"
    crun.write_text(f"#!/bin/sh\ntouch {ran}\necho crun version 1.8.1\n")
    crun.chmod(0o755)
    identity = os.urandom(32).hex()
    words = ("-n", "web", "-c", identity, "-r", str(crun), "libpod")
    with with_a_device(identity), impostor(tmp_path, words, prefix) as child:
        assert "crun-device" not in causes(child)
    assert not ran.exists()


def test_a_runtime_that_isn_t_installed_is_not_run(tmp_path: Path) -> None:
    """Not for conmon's sake either, as podman's --runtime may be any file."""
    identity = os.urandom(32).hex()
    with with_a_device(identity), conmon(tmp_path, (), identity) as child:
        found = containers.of_process(child)
        assert (found.vouched, found.runtime) == (True, str(tmp_path / "crun"))
        assert "crun-device" not in causes(child)
        assert not (tmp_path / "asked").exists()


def test_as_the_container_s_user() -> None:
    """What can be told without root is told, and what can't is said to be so."""
    with Scratch(prefix=("setpriv", *USER)) as scratch:
        delegate(scratch.init.pid, SOCKET)
        with scratch.running("unshare", "--net", "--", *with_filter()) as process:
            found = findings("--pid", str(process.pid), user=61998)
    assert {name: one["state"] for name, one in others(found).items()} == {
        "seccomp": "warning",
        "token": "warning",
    }
    # By its pid: root may have a container with that name.
    sudo = f"sudo oci-bpf-hook doctor --pid {process.pid}"
    assert {one["fix"] for one in others(found).values()} == {sudo}


def test_another_user_s_container() -> None:
    with workload() as (pid, _):
        done = command("doctor", "--pid", str(pid), user=61998)
    assert (done.returncode, done.stdout) == (BAD_STATE, "")
    assert "can't be looked at: Permission denied" in done.stderr
