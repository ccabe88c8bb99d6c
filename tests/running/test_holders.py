"""holders.py: real processes that have a token or a bpffs, and hide it as well as they can."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from oci_bpf_hook.container.namespaces import Process
from oci_bpf_hook.kernel import bpf
from oci_bpf_hook.kernel.mountinfo import of_interest
from oci_bpf_hook.running.holders import DIRECTORY, MOUNT, TOKEN, Held, holders
from oci_bpf_hook.running.process import mounts
from tests.hook.test_paths import SILENT
from tests.support.scratch import Scratch
from tests.support.situation import BPFFS, SOCKET, delegate, workload

NUMBER = str(bpf.arch().bpf)
_MAKES = """
import ctypes, os, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def token():
    fd = os.open("/sys/fs/bpf", os.O_RDONLY)
    attr = struct.pack("=II", 0, fd)
    assert libc.syscall(int(sys.argv[1]), 36, attr, len(attr)) >= 0
    return fd
"""
_ECHOES = """
while data := os.read(0, 1):
    os.write(1, data)
"""
# Makes a token and opens the bpffs, and keeps both.
HOLDS = f"{_MAKES}token(){_ECHOES}"
# A thread with files of its own does.
IN_A_THREAD = f"""{_MAKES}
done = threading.Event()
def hide():
    assert libc.unshare(0x400) == 0
    os.close(token())
    done.set()
    threading.Event().wait()
threading.Thread(target=hide, daemon=True).start()
done.wait()
{_ECHOES}"""
# And this in a user namespace within the container's, with nothing but the token.
NESTED = f"""{_MAKES}
os.close(token())
assert libc.unshare(0x10000000) == 0
{_ECHOES}"""


def found(pid: int) -> list[Held]:
    with Process(pid) as process:
        devices = {mount.device for mount in mounts(process, of_interest()).kept}
    return list(holders(devices, os.stat(f"/proc/{pid}/ns/mnt").st_ino))


@contextmanager
def held(*command: str) -> Iterator[tuple[int, set[tuple[int, str]]]]:
    """A process that `command` has become in a container with a delegation, and what is held."""
    with workload(*command) as (pid, scratch):
        yield pid, {(one.pid, one.what) for one in found(scratch.init.pid)}


def test_a_token_and_a_directory() -> None:
    with held(sys.executable, "-IS", "-c", HOLDS, NUMBER) as (pid, what):
        assert what == {(pid, TOKEN), (pid, DIRECTORY)}


def test_nobody() -> None:
    with held() as (_, what):
        assert what == set()


def test_a_thread_with_files_of_its_own() -> None:
    with held(sys.executable, "-IS", "-c", IN_A_THREAD, NUMBER) as (pid, what):
        assert what == {(pid, TOKEN)}


def test_a_token_in_another_user_namespace() -> None:
    with held(sys.executable, "-IS", "-c", NESTED, NUMBER) as (pid, what):
        assert what == {(pid, TOKEN)}


def test_the_directory_that_a_process_is_in() -> None:
    with held("sh", "-c", f'cd {BPFFS} && exec "$@"', "sh") as (pid, what):
        assert what == {(pid, DIRECTORY)}


def test_a_mount_namespace_where_nothing_covers_it() -> None:
    with held("unshare", "--mount") as (pid, what):
        assert what == {(pid, MOUNT)}


def test_a_directory_outside_of_its_user_namespace() -> None:
    """Whoever has it may hand it in again."""
    with workload() as (pid, _):
        fd = os.open(f"/proc/{pid}/root{BPFFS}", os.O_RDONLY)
        try:
            (ours,) = found(pid)
        finally:
            os.close(fd)
    assert (ours.pid, ours.fd, ours.what) == (os.getpid(), fd, DIRECTORY)


def test_a_file_system_that_does_not_answer() -> None:
    """Whoever asked it of an open file would wait, and couldn't be killed."""
    code = f"import os, sys\nos.open(sys.argv[1], os.O_PATH){_ECHOES}"
    with Scratch(setup=SILENT, devices={"fuse": (10, 229)}) as scratch:
        delegate(scratch.init.pid, SOCKET)
        with scratch.running(sys.executable, "-IS", "-c", code, str(scratch.root / "opt")):
            assert found(scratch.init.pid) == []
