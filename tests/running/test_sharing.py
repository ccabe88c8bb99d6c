"""sharing.py: what a container shares with the host, whichever of its processes is looked at."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from oci_bpf_hook.container.namespaces import Process
from oci_bpf_hook.running import sharing
from oci_bpf_hook.running.sharing import shares
from tests.support.places import ROOT
from tests.support.podman import World, started
from tests.support.processes import children
from tests.support.scratch import Scratch

# What a container's init does: start a process that does something first, and stays.
START = """
import select, signal, threading
alive = os.pipe()
def start(act):
    done = os.pipe()
    if os.fork() == 0:
        libc.prctl(1, 9, 0, 0, 0)
        act()
        os.write(done[1], b"x")
        while True:
            signal.pause()
    assert os.read(done[0], 1) == b"x"
def own(flags):
    check(libc.unshare(flags))
NEWNS, NEWUSER, NEWNET = 0x20000, 0x10000000, 0x40000000
"""
# As its runtime does: what there was of the host's mounts, its cgroups among them, is gone then.
PIVOT = """
os.chdir(root)
check(libc.pivot_root(b".", b"."))
check(libc.umount2(b".", 2))
os.chdir("/")
"""


@contextmanager
def looked_at(pid: int) -> Iterator[Process]:
    """The process `pid`; to look leaves no fd and no process behind."""
    with Process(pid) as process:
        before = os.listdir("/proc/self/fd"), children(os.getpid())
        yield process
        assert (os.listdir("/proc/self/fd"), children(os.getpid())) == before


def test_nothing_is_shared() -> None:
    with (
        Scratch(
            network=True, setup=START + PIVOT + "start(lambda: own(NEWNET | NEWNS))"
        ) as scratch,
        looked_at(scratch.init.pid) as process,
    ):
        assert shares(process) == (False, False)
        (child,) = children(scratch.init.pid)
        with looked_at(child) as other:
            assert shares(other) == (False, False)


def test_one_process_has_a_network_of_its_own() -> None:
    """And asks, while the container is in the host's."""
    with Scratch(setup=START + PIVOT + "start(lambda: own(NEWNET))") as scratch:
        (child,) = children(scratch.init.pid)
        with looked_at(child) as process:
            assert not process.has_host_network()
            assert shares(process) == (True, False)


def test_one_thread_is_in_the_host_s_network() -> None:
    setup = "threading.Thread(target=signal.pause, daemon=True).start()\nown(NEWNET)\n"
    with Scratch(setup=START + PIVOT + setup) as scratch, looked_at(scratch.init.pid) as process:
        assert len(os.listdir(f"/proc/{scratch.init.pid}/task")) == 2
        assert not process.has_host_network()
        assert shares(process) == (True, False)


def test_one_process_has_no_cgroups_in_sight() -> None:
    """While another has kept the mounts that the runtime has taken from all others."""
    setup = START + "start(lambda: own(NEWNS))\n" + PIVOT
    with Scratch(network=True, setup=setup) as scratch, looked_at(scratch.init.pid) as process:
        assert not process.sees_host_cgroups(None)
        assert shares(process) == (False, True)


def test_a_process_whose_root_directory_hides_the_mounts() -> None:
    """To change it takes a right that engines give; whoever has a directory open comes out."""
    setup = "os.chroot(root)\nos.chdir('/')\n"
    with Scratch(network=True, setup=setup) as scratch, looked_at(scratch.init.pid) as process:
        assert not process.sees_host_cgroups(None)
        assert shares(process) == (False, True)


def test_a_namespace_within_the_container_s() -> None:
    """Its processes count for the container, and none of them is believed."""
    for network in (True, False):
        setup = START + PIVOT + "start(lambda: own(NEWUSER | NEWNET))\n"
        with Scratch(network=network, setup=setup) as scratch:
            with looked_at(scratch.init.pid) as process:
                assert shares(process) == (not network, False)
            (child,) = children(scratch.init.pid)
            with looked_at(child) as process:
                assert shares(process) == (True, True)


def test_one_within_that_is_in_the_host_s_network() -> None:
    setup = START + PIVOT + "start(lambda: own(NEWUSER))\nown(NEWNET)\n"
    with Scratch(setup=setup) as scratch, looked_at(scratch.init.pid) as process:
        assert not process.has_host_network()
        assert shares(process) == (True, False)


# One that is in the host's network, and is never the same for long: each starts the next and ends.
# The last ends when its container's init does, which alone holds the pipe's other end.
HOPS = """
def hop():
    os.close(alive[1])
    while not select.select([alive[0]], [], [], 0.0002)[0]:
        if os.fork():
            os._exit(0)
    os._exit(0)
done = os.pipe()
if os.fork() == 0:
    os.close(done[0])
    os.close(done[1])
    hop()
os.close(done[1])
os.read(done[0], 1)
own(NEWNET)
"""


def test_processes_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_SECONDS", 0.2)
    with Scratch(setup=START + PIVOT + HOPS) as scratch:
        for _ in range(30):
            with looked_at(scratch.init.pid) as process:
                assert not process.has_host_network()
                assert shares(process)[0]


@pytest.mark.parametrize("name", ["_MOST", "_MOST_NAMESPACES", "_SECONDS"])
def test_more_than_anybody_looks_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with Scratch(network=True, setup=PIVOT) as scratch, looked_at(scratch.init.pid) as process:
        assert shares(process) == (False, False)
        monkeypatch.setattr(sharing, name, 0)
        assert shares(process) == (True, True)


def test_one_that_has_ended() -> None:
    with Scratch(network=True, setup=PIVOT) as scratch:
        process = Process(scratch.init.pid)
    with process:
        assert shares(process) == (True, True)


def test_a_process_of_the_host_s() -> None:
    with Process(None) as process:
        assert shares(process) == (True, True)


def told(pid: int, prefix: Sequence[str] = ()) -> str:
    """What is found of a process by another that `prefix` starts."""
    code = (
        "import sys\n"
        "from oci_bpf_hook.container.namespaces import Process\n"
        "from oci_bpf_hook.running.sharing import shares\n"
        "with Process(int(sys.argv[1])) as process:\n"
        "    print(*shares(process))\n"
    )
    command = [*prefix, sys.executable, "-c", code, str(pid)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_where_not_every_process_is_in_sight() -> None:
    """In a pid namespace of our own; the host's /proc shows them still, by other numbers."""
    with Scratch(network=True, setup=PIVOT) as scratch:
        assert told(scratch.init.pid) == "False False"
        assert told(scratch.init.pid, ["unshare", "--pid", "--fork", "--"]) == "True True"


def test_as_a_service_with_its_own_proc() -> None:
    """systemd's ProcSubset=pid, which the broker's unit has."""
    shell = 'mount -t proc -o subset=pid proc /proc && exec "$@"'
    prefix = ["unshare", "--mount", "--", "sh", "-c", shell, "sh"]
    with Scratch(network=True, setup=PIVOT) as scratch:
        assert told(scratch.init.pid, prefix) == "False False"


@pytest.mark.parametrize(
    ("since", "pid", "last", "wanted"),
    [
        (100, 100, 200, False),
        (100, 101, 200, True),
        (100, 200, 200, True),
        (100, 201, 200, False),
        (100, 99, 200, False),
        # They have begun anew.
        (32000, 32001, 400, True),
        (32000, 300, 400, True),
        (32000, 400, 400, True),
        (32000, 401, 400, False),
        (32000, 32000, 400, False),
        # Nobody has been started.
        (100, 100, 100, False),
    ],
)
def test_which_numbers_have_been_given(since: int, pid: int, last: int, *, wanted: bool) -> None:
    assert sharing._is_between(since, pid, last) is wanted


def test_a_user_s_own() -> None:
    nobodys = ("setpriv", "--reuid=61996", "--regid=61996", "--clear-groups")
    with Scratch(network=True, prefix=nobodys, setup=PIVOT) as scratch:
        assert told(scratch.init.pid) == "True True"


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ((), (False, False)),
        (("--network=host",), (True, False)),
        (("--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup"), (False, True)),
    ],
    ids=["own", "network", "cgroups"],
)
def test_a_container_of_podman_s(
    world: World, option: tuple[str, ...], wanted: tuple[bool, bool]
) -> None:
    with started(world, "shares", "crun", *option):
        pid = int(world.podman("inspect", "--format", "{{.State.Pid}}", "shares").stdout)
        with looked_at(pid) as process:
            assert shares(process) == wanted
