"""process.py: what /proc tells of real processes."""

import pytest

from oci_bpf_hook.container.namespaces import Process
from oci_bpf_hook.kernel.mountinfo import of_interest
from oci_bpf_hook.kernel.process import CAP_BPF, CAP_SYS_ADMIN
from oci_bpf_hook.running.process import (
    comm,
    environment,
    inside_id,
    libraries,
    mounts,
    pids,
    status,
    status_of,
)
from tests.support.scratch import FIRST_ID, Scratch
from tests.support.situation import BPFFS, workload


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
        assert BPFFS in [mount.point for mount in mounts(process, of_interest()).kept]
        assert comm(pid) == "cat"
        assert pid in pids()


def test_a_process_that_has_gone() -> None:
    with Scratch() as scratch, Process(scratch.init.pid) as process:
        scratch.init.kill()
        scratch.init.wait()
        with pytest.raises(ProcessLookupError):
            status(process)
