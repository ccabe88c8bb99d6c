"""Which processes are containers, and which namespaces nobody touches."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.container.namespaces import Container
from oci_bpf_hook.errors import NO_USER_NAMESPACE, HookError
from tests.support.scratch import Scratch, assert_failed
from tests.support.tracer import reaped


@pytest.fixture(autouse=True)
def no_fd_is_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


def refused(pid: int, code: int, words: str) -> None:
    with pytest.raises(HookError) as caught:
        Container(pid)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_its_namespaces() -> None:
    with Scratch() as scratch, Container(scratch.init.pid) as container:
        directory = Path(f"/proc/{scratch.init.pid}/ns")
        assert os.fstat(container.user).st_ino == (directory / "user").stat().st_ino
        assert os.fstat(container.mount).st_ino == (directory / "mnt").stat().st_ino
        assert not os.get_inheritable(container.user)
        assert container.alive()


def test_ourselves() -> None:
    refused(os.getpid(), 14, "no user namespace of its own")


def test_a_process_of_the_hosts() -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE) as process:
        refused(process.pid, 14, "no user namespace of its own")


def test_no_process() -> None:
    refused((1 << 31) - 1, 17, "is gone")


def test_no_user_namespace() -> None:
    with Scratch(user=False) as scratch:
        refused(scratch.init.pid, 14, "--userns=auto")


def test_our_mount_namespace() -> None:
    with Scratch(mount=False) as scratch:
        refused(scratch.init.pid, 14, "no mount namespace of its own")


def test_a_mount_namespace_of_another_user_namespace() -> None:
    """Made before the user namespace, it is the host's: its owner has it, not the container."""
    with Scratch(mount=False, prefix=("unshare", "-m", "--")) as scratch:
        refused(scratch.init.pid, 14, "belongs to another user namespace")


def test_a_nested_user_namespace() -> None:
    with (
        Scratch() as scratch,
        scratch.running("unshare", "-U", "-r", "-m") as nested,
        Container(nested.pid) as container,
    ):
        assert container.alive()


def test_a_nested_user_namespace_with_its_parents_mounts() -> None:
    with Scratch() as scratch, scratch.running("unshare", "-U", "-r") as nested:
        refused(nested.pid, 14, "belongs to another user namespace")


def test_a_zombie() -> None:
    with Scratch() as scratch:
        reaped(scratch.init.pid)
        refused(scratch.init.pid, 17, "is gone")


def test_it_dies() -> None:
    with Scratch() as scratch, Container(scratch.init.pid) as container:
        assert container.alive()
        reaped(scratch.init.pid)
        assert not container.alive()
        scratch.init.wait()
        assert not container.alive()


MOVES = """
print("ready", flush=True)
sys.stdin.readline()
check(libc.unshare(0x20000))
"""


def test_it_goes_to_another_mount_namespace() -> None:
    with Scratch(setup=MOVES) as scratch, Container(scratch.init.pid) as container:
        assert container.alive()
        scratch.tell("move")
        assert not container.alive()


def test_close_twice() -> None:
    with Scratch() as scratch, Container(scratch.init.pid) as container:
        container.close()


def test_a_user_namespace_without_root() -> None:
    with Scratch(lowest=1) as container:
        result = container.hook({"io.bpffs.delegate_cmds": "map_create"})
        assert_failed(result, NO_USER_NAMESPACE, "no root", "map 0 as well", container=container)
