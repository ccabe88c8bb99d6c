"""processes.py: what /proc tells of real processes."""

import os
from pathlib import Path

import pytest

from oci_bpf_hook.container import Process
from oci_bpf_hook.probes import CAP_BPF, CAP_SYS_ADMIN
from oci_bpf_hook.processes import (
    comm,
    environment,
    holders,
    inside_id,
    libraries,
    mounts,
    pids,
    status,
    status_of,
)
from tests.support.scratch import FIRST_ID, Scratch
from tests.support.situation import BPFFS, workload

# Makes a token and opens the bpffs, and keeps both.
HOLDS = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("/sys/fs/bpf", os.O_RDONLY)
attr = struct.pack("=II", 0, fd)
assert libc.syscall(int(sys.argv[1]), 36, attr, len(attr)) >= 0
while data := os.read(0, 1):
    os.write(1, data)
"""


def test_status() -> None:
    user = ("--reuid=1000", "--regid=1001", "--groups=1002")
    with workload("setpriv", *user, "--inh-caps=+bpf", "--ambient-caps=+bpf") as (pid, _):
        with Process(pid) as process:
            found = status(process)
            assert inside_id(process, "uid", found.uid) == 1000
            assert inside_id(process, "gid", found.gid) == 1001
            assert inside_id(process, "uid", 5) is None
        assert status_of(pid) == found
    assert (found.name, found.uid, found.groups) == ("cat", FIRST_ID + 1000, (FIRST_ID + 1002,))
    assert found.has(CAP_BPF)
    assert not found.has(CAP_SYS_ADMIN)
    assert found.ambient == found.effective == found.permitted == 1 << CAP_BPF
    assert found.bounding >> CAP_SYS_ADMIN & 1
    assert found.seccomp == 0


def test_environment_and_libraries() -> None:
    with workload("env", "A=b=c", "EMPTY=") as (pid, _), Process(pid) as process:
        found = environment(process)
        assert (found["A"], found["EMPTY"]) == ("b=c", "")
        assert any(path.endswith("/cat") for path in libraries(process))
        assert BPFFS in [mount.point for mount in mounts(process) if mount.delegates]
        assert comm(pid) == "cat"
        assert pid in pids()


def test_a_process_that_has_gone() -> None:
    with Scratch() as scratch, Process(scratch.init.pid) as process:
        scratch.init.kill()
        scratch.init.wait()
        with pytest.raises(ProcessLookupError):
            status(process)


def test_who_holds_a_token_or_the_directory() -> None:
    import sys

    from oci_bpf_hook import probes

    number = str(probes.arch().bpf)
    with workload(sys.executable, "-IS", "-c", HOLDS, number) as (pid, scratch):
        with Process(pid) as process:
            (mount,) = [mount for mount in mounts(process) if mount.delegates]
        fd = os.open(f"/proc/{pid}/root{BPFFS}", os.O_RDONLY)
        try:
            user = Path(f"/proc/{pid}/ns/user").stat().st_ino
            found = list(holders({mount.device}, user))
            other = list(holders({mount.device}, user + 1))
        finally:
            os.close(fd)
        assert scratch.init.pid != pid
    # Ours is open too, but in another user namespace, where it makes no token.
    assert {(held.pid, held.what) for held in found} == {(pid, "token"), (pid, "directory")}
    assert other == []
