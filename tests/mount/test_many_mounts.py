"""More mounts than anybody looks at: each tool says so, and none takes them for nothing."""

import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.audit.read import Granted
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.container.namespaces import Process
from oci_bpf_hook.container.nesting import outermost
from oci_bpf_hook.errors import BAD_STATE, DONE, MOUNT_FAILED
from oci_bpf_hook.files import MOUNTINFO_MAX
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.kernel.mountinfo import of_interest
from oci_bpf_hook.running.containers import of_process
from oci_bpf_hook.running.delegations import delegations, of_container
from oci_bpf_hook.running.holders import UNSEEN, holders
from oci_bpf_hook.running.process import Patience, TooManyMountsError, mounts
from tests.running.test_delegations import of
from tests.support.places import ROOT
from tests.support.scratch import Scratch, assert_failed, io
from tests.support.situation import (
    BPFFS,
    SOCKET,
    command,
    delegate,
    findings,
    masks,
    not_well,
    workload,
)

ENUMS = kernel.enums(KINDS)
SCHEMA = json.loads((ROOT / "schema" / "inspect.schema.json").read_text())
DELEGATE_SCHEMA = json.loads((ROOT / "schema" / "delegate.schema.json").read_text())
# Binds a directory with a very long name on itself, once it is told to.
CROWD = """
print("ready", flush=True)
sys.stdin.readline()
name = root + "/opt" + ("/" + "x" * 230) * 10
os.makedirs(name)
while len(open("/proc/self/mountinfo", "rb").read()) <= 17 << 20:
    for _ in range(1000):
        mount(name, name, None, BIND)
"""


@pytest.fixture(scope="module")
def crowded() -> Iterator[Scratch]:
    """A container with a delegation, whose root has made the mounts after that."""
    with Scratch(setup=CROWD) as scratch:
        delegate(scratch.init.pid, SOCKET)
        scratch.tell("go")
        assert len(Path(f"/proc/{scratch.init.pid}/mountinfo").read_bytes()) > MOUNTINFO_MAX
        yield scratch


def test_a_row_says_so(crowded: Scratch) -> None:
    label = f"pid {crowded.init.pid}"
    done = command("inspect", "--json")
    assert done.returncode == DONE, done.stderr
    found = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    (one,) = (one for one in found if one["container"]["pid"] == crowded.init.pid)
    assert (one["path"], one["delegated"], one["covered"]) == (None, {}, False)
    assert (one["host_network"], one["host_cgroup"]) == (True, True)
    (warning,) = one["warnings"]
    assert warning.startswith("unseen: its mounts can't be looked at")
    assert warning.endswith("more than 16384 KiB of mounts")
    (row,) = (line for line in command("inspect").stdout.splitlines() if label in line)
    assert row.split()[-2:] == ["?", "unseen"]


def test_the_page_has_it(crowded: Scratch, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert command("inspect", "--html", str(path)).returncode == DONE
    assert f"pid {crowded.init.pid}" in path.read_text()


def test_what_the_audit_trail_knows_of_it(crowded: Scratch) -> None:
    one = of_process(crowded.init.pid)
    known = Granted(rule="r", shown=SOCKET, path=BPFFS, time=time.time())
    (found,) = of_container(one, ENUMS, {(f"pid-{one.pid}", 0): known})
    assert (found.path, found.rule, found.masks) == (BPFFS, "r", masks(SOCKET))
    assert found.warnings[0].code == "unseen"


def test_it_takes_little_memory(crowded: Scratch) -> None:
    one = of_process(crowded.init.pid)
    list(of_container(one, ENUMS, {}))
    tracemalloc.start()
    try:
        (found,) = of_container(one, ENUMS, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.unseen
    assert peak < 40 << 20


def test_doctor_says_so(crowded: Scratch) -> None:
    found = not_well(findings("--pid", str(crowded.init.pid)))
    assert list(found) == ["container"]
    assert "can't be looked at: it has more than" in found["container"]["why"]


def test_nothing_is_delegated_and_nothing_revoked(crowded: Scratch) -> None:
    for what in ("--cmds=any", "--revoke"):
        done = command("delegate", "--pid", str(crowded.init.pid), what)
        assert (done.returncode, done.stdout) == (BAD_STATE, "")
        assert "can't be looked at: it has more than" in done.stderr


def test_the_hook_gives_nothing(crowded: Scratch) -> None:
    result = crowded.hook(io(delegate_cmds="map_create", path="/opt"))
    assert_failed(result, MOUNT_FAILED, "the container's mounts", "too many", "unmount some")


def test_who_may_still_see_it(crowded: Scratch) -> None:
    """By --revoke of another container, the one with that many may have the bpffs as well."""
    with workload() as (pid, scratch):
        with Process(pid) as process:
            (mount,) = mounts(process, of_interest()).kept
        namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
        found = [(one.pid, one.what) for one in holders({mount.device}, namespace)]
        assert (crowded.init.pid, UNSEEN) in found
        done = command("delegate", "--json", "--revoke", "--pid", str(scratch.init.pid))
        assert done.returncode == DONE, done.stderr
        answer = json.loads(done.stdout)
    jsonschema.validate(answer, DELEGATE_SCHEMA)
    assert (crowded.init.pid, "unseen") in [(one["pid"], one["what"]) for one in answer["holders"]]


def test_many_that_delegate() -> None:
    """That would be as many rows as there are mounts."""
    crowd = """
print("ready", flush=True)
sys.stdin.readline()
for _ in range(4100):
    mount("/sys/fs/bpf", root + "/opt", None, BIND)
"""
    with Scratch(setup=crowd) as scratch:
        delegate(scratch.init.pid, SOCKET)
        scratch.tell("go")
        (one,) = of(scratch.init.pid)
    assert one.unseen == "it has more than 4096 mounts that delegate"


def test_so_much_of_one_owner_s() -> None:
    """Who has many namespaces has no more patience than who has one."""
    with workload() as (pid, _), Process(pid) as process:
        size = len(Path(f"/proc/{pid}/mountinfo").read_bytes())
        patience = Patience(of_all=3 * size)
        assert len(mounts(process, of_interest(), patience).kept) == 1
        # Read twice, where there is something of interest.
        with pytest.raises(
            TooManyMountsError, match="than are read for all of its owner's containers"
        ):
            mounts(process, of_interest(), patience)
        with pytest.raises(TooManyMountsError, match=r"more than \d+ KiB"):
            mounts(process, of_interest(), Patience(of_one=size - 1))


def test_one_owner_s_are_not_another_s(crowded: Scratch) -> None:
    """The one that can't be looked at takes no other's row away."""
    with workload() as (pid, scratch):
        rows = {one.container.pid: one for one in delegations(ENUMS)}
        assert rows[crowded.init.pid].unseen
        assert rows[scratch.init.pid].shown == SOCKET
        assert pid


def test_so_long_of_one_owner_s() -> None:
    """What confines it is asked of its own file systems, and those may never answer."""
    with workload() as (pid, _):
        one = of_process(pid)
        with Process(pid) as process:
            namespace, _ = outermost(process)
        patience = Patience()
        (asked,) = of_container(one, ENUMS, {}, {-namespace: patience})
        assert asked.confined is False
        patience.seconds = 0
        (unasked,) = of_container(one, ENUMS, {}, {-namespace: patience})
    assert unasked.confined is None
    assert unasked.shown == asked.shown == SOCKET
