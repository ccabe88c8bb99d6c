"""The broker's child in a peer's namespaces, whose owner may do there whatever they like."""

import json
import os
import select
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from oci_bpf_hook.broker.making import CONTEXT, MOUNT, Making
from oci_bpf_hook.container.namespaces import Container
from oci_bpf_hook.delegation.masks import Grant
from oci_bpf_hook.errors import MOUNT_FAILED, HookError
from oci_bpf_hook.mount import container_half
from oci_bpf_hook.mount.child import create
from tests.support.broker import ALONE
from tests.support.scratch import Scratch, bpf_mounts
from tests.support.tracer import fds
from tests.support.users import ALICE, users

GRANT = Grant(masks={"delegate_cmds": 0x21}, path="/", mode=0o1777)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd"), bpf_mounts()
    yield
    assert (os.listdir("/proc/self/fd"), bpf_mounts()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


class Joined(Making):
    """A child that has joined its container for sure, and waits for its order."""

    def make_context(self) -> None:
        """Have it open the filesystem context, and wait for the host half."""
        self._send(container_half.MODE.pack(0o1777))
        self._receive(CONTEXT)

    def finish(self, grant: Grant) -> None:
        """Have it make the mount from that context."""
        create(self._fds[0], grant)
        self._send(container_half.CREATED)
        self._receive(MOUNT)

    @property
    def pid(self) -> int:
        return self._pid


class Hasty(Joined):
    """One that isn't waited for as long."""

    seconds = 1


class Case(NamedTuple):
    """A child of ours in a container."""

    scratch: Scratch
    half: Joined


@pytest.fixture
def case() -> Iterator[Case]:
    with (
        Scratch() as scratch,
        Container(scratch.init.pid) as container,
        Joined(container) as half,
    ):
        yield Case(scratch, half)


def test_a_mount_that_nobody_has_attached(case: Case) -> None:
    mount = case.half.make(GRANT)
    assert os.readlink(f"/proc/self/fd/{mount}") == "/"
    assert bpf_mounts(case.scratch.init.pid) == []


@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o700, 0])
def test_its_mode_and_owner(case: Case, mode: int) -> None:
    status = os.fstat(case.half.make(Grant(masks=GRANT.masks, path="/", mode=mode)))
    assert status.st_mode & 0o7777 == mode
    root = case.scratch.root.stat()
    assert (status.st_uid, status.st_gid) == (root.st_uid, root.st_gid)


def test_where_it_is(case: Case) -> None:
    case.half.make_context()
    # Of the standard streams it has none: what it opens gets their numbers.
    held = fds(case.half.pid)
    assert {held[number].partition(":")[0] for number in range(3) if number in held} <= {
        "anon_inode"
    }
    its, theirs = (Path(f"/proc/{pid}/ns") for pid in (case.half.pid, case.scratch.init.pid))
    for name in ("user", "mnt"):
        assert os.readlink(its / name) == os.readlink(theirs / name)
    assert os.readlink(its / "pid") == os.readlink("/proc/self/ns/pid")


ATTACKS = """
import ctypes, json, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
found = {}
def attempt(name, function):
    try:
        function()
        found[name] = "done"
    except OSError as error:
        found[name] = os.strerror(error.errno)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
def ptrace(request):
    if libc.ptrace(request, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), "")
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
attempt("attach", lambda: ptrace(PTRACE_ATTACH))
attempt("seize", lambda: ptrace(PTRACE_SEIZE))
for name in ("mem", "environ", "maps", "auxv", "syscall", "stack"):
    attempt(name, lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
attempt("mem for writing", lambda: open(f"/proc/{pid}/mem", "r+b").write(b"x"))
for name in ("root", "cwd", "exe", "fd", "ns/mnt", "ns/user", "map_files"):
    attempt(name, lambda: os.listdir(f"/proc/{pid}/{name}") if name in ("fd", "map_files")
            else os.readlink(f"/proc/{pid}/{name}"))
pidfd = os.pidfd_open(pid)
PIDFD_GETFD = 438
for number in range(4):
    attempt(f"getfd {number}", lambda: call(PIDFD_GETFD, pidfd, number, 0))
class Vec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
local = Vec(ctypes.addressof(buffer), 8)
def vm(function):
    if function(pid, ctypes.byref(local), 1, ctypes.byref(local), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "")
attempt("read its memory", lambda: vm(libc.process_vm_readv))
attempt("write its memory", lambda: vm(libc.process_vm_writev))
print(json.dumps(found))
"""


def attack(scratch: Scratch, pid: int) -> dict[str, str]:
    """What root of the container can do to the process `pid`."""
    done = scratch.enter("/usr/bin/python3", "-IS", "-c", ATTACKS, str(pid))
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_nobody_in_there_looks_into_it(case: Case) -> None:
    """Not as root of its namespaces, and in the host's pid namespace, where it can be seen."""
    case.half.make_context()
    attacks = attack(case.scratch, case.half.pid)
    assert len(attacks) > 18
    refusals = {"Operation not permitted", "Permission denied"}
    assert {name: said for name, said in attacks.items() if said not in refusals} == {}
    case.half.finish(GRANT)


def test_the_attacks_work_on_others() -> None:
    """What the container's root does to its own processes, so that the test above can fail."""
    with Scratch() as scratch, scratch.running("env") as victim:
        try:
            attacks = attack(scratch, victim.pid)
        finally:
            # An attached one stays stopped.
            victim.kill()
    assert attacks["attach"] == attacks["getfd 0"] == attacks["mem for writing"] == "done"
    assert attacks["read its memory"] in ("done", "Bad address")


def test_it_is_stopped() -> None:
    """Its user may send it signals, since it has their id: the deadline ends it."""
    command = [*ALICE.running(ALONE), "sh", "-c", "echo; exec tail -f /dev/null"]
    with users(), subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"\n"
            with Container(process.pid) as container, Hasty(container) as half:
                half.make_context()
                done = ALICE.run("kill", "-STOP", str(half.pid))
                assert done.returncode == 0, done.stderr
                with pytest.raises(HookError) as caught:
                    half.finish(GRANT)
                assert caught.value.code == MOUNT_FAILED
                assert "hung" in str(caught.value)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_killed(case: Case, number: int) -> None:
    case.half.make_context()
    os.kill(case.half.pid, number)
    with pytest.raises(HookError, match=f"killed by signal {int(number)}") as caught:
        case.half.finish(GRANT)
    assert caught.value.code == MOUNT_FAILED


def test_it_ends_with_the_broker() -> None:
    with Scratch() as scratch, Container(scratch.init.pid) as container:
        ours, theirs = os.pipe()
        broker = os.fork()
        if broker == 0:
            half = Joined(container)
            half.make_context()
            os.write(theirs, struct.pack("=i", half.pid))
            signal.pause()
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            (pid,) = struct.unpack("=i", pipe.read(4))
            child = os.pidfd_open(pid)
            try:
                os.kill(broker, signal.SIGKILL)
                assert select.select([child], [], [], 10)[0]
            finally:
                os.close(child)
        os.waitpid(broker, 0)
        scratch.assert_untouched()


def test_a_mask_that_no_kernel_takes(case: Case) -> None:
    with pytest.raises(HookError) as caught:
        case.half.make(Grant(masks={"delegate_cmds": 1 << 70}, path="/", mode=0o1777))
    assert caught.value.code == MOUNT_FAILED
