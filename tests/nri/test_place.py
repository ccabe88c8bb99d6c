"""Where the mounts are until an engine takes them: what others see of it, and what it touches."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.nri.engine import Engine
from oci_bpf_hook.nri.place import EngineHalf
from oci_bpf_hook.nri.wire.protobuf import encode
from oci_bpf_hook.paths import PODS, RUN
from tests.support.nri import (
    LIMIT,
    Plugin,
    Pod,
    event,
    held,
    mount_of,
    nothing_left,
    taken_away,
)
from tests.support.processes import wait_until_gone

# Detaching a mount takes some time.
DELAY = "inject=umount2:delay_enter=400000"
SLOW = ("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=umount2", "-e", DELAY)


def points(mountinfo: str) -> list[str]:
    return [line.split()[4] for line in mountinfo.splitlines()]


def test_whoever_mounted_the_tmpfs_died(pod: Pod) -> None:
    """Then it is as it was mounted: shared, if what is above it is."""
    if PODS in points(Path("/proc/self/mountinfo").read_text()):
        subprocess.run(["umount", PODS], check=True)
    os.makedirs(PODS, mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", PODS], check=True)
    subprocess.run(["mount", "--make-shared", PODS], check=True)
    with Plugin() as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        _, source, _, _ = mount_of(begun.call("CreateContainer", request))
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        ours = [line for line in lines if line.split()[4] in (PODS, source)]
        assert len(ours) == 2
        assert [line for line in ours if "shared:" in line] == []
        taken_away(plugin, begun, identity)


@pytest.mark.parametrize("identity", ["../elsewhere", "..", "", ".", "a/../../elsewhere", "a\0b"])
def test_no_id_leads_elsewhere(identity: str) -> None:
    elsewhere = f"{RUN}/elsewhere/bpf"
    os.makedirs(elsewhere)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", elsewhere], check=True)
    ours, theirs = socket.socketpair()
    try:
        with ours, theirs, Engine(ours) as engine, EngineHalf(engine) as half:
            half.remove(identity)
        assert elsewhere in points(Path("/proc/self/mountinfo").read_text())
    finally:
        subprocess.run(["umount", "-q", elsewhere], check=False)
        for path in (elsewhere, os.path.dirname(elsewhere)):
            if os.path.exists(path):
                os.rmdir(path)


def test_a_stop_takes_away_what_it_has_begun_to(pod: Pod) -> None:
    """Whoever waits for the plugin's end finds nothing, however long detaching takes."""
    with Plugin(prefix=SLOW) as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        assert mount_of(begun.call("CreateContainer", request))
        assert begun.call("StateChange", event(10, identity)).code == 0
        plugin.process.terminate()
        assert plugin.process.wait(LIMIT) == 0
        assert nothing_left()


def test_the_engine_goes_while_a_mount_is_taken_away(pod: Pod) -> None:
    with Plugin(prefix=SLOW) as plugin:
        begun = plugin.accept()
        with begun.sock:
            begun.start()
            identity, request = pod.creation()
            assert mount_of(begun.call("CreateContainer", request))
            assert begun.call("StateChange", event(10, identity)).code == 0
        plugin.process.terminate()
        assert plugin.process.wait(LIMIT) == 0
        assert nothing_left()


def test_what_was_not_taken_away_is_at_the_next_event(pod: Pod) -> None:
    """Here there are too many mounts on top of each other for one time."""
    with Plugin() as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        _, source, _, _ = mount_of(begun.call("CreateContainer", request))
        for _ in range(9):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source], check=True)
        assert begun.call("StateChange", event(10, identity)).code == 0
        wait_until_gone(plugin.children())
        assert held() == [identity]
        taken_away(plugin, begun, identity)
    assert nothing_left()


def test_a_container_that_is_longer_than_what_is_read(pod: Pod) -> None:
    """Its pod's author may make it so, and a session begins all the same, with what is to stay."""
    with Plugin() as plugin:
        with plugin.session() as begun:
            identity, request = pod.creation()
            assert mount_of(begun.call("CreateContainer", request))
        again = plugin.accept()
        with again.sock:
            long = encode({1: "other", 4: 1, 7: [identity, *["a"] * 70_000]})
            mine = encode({1: identity, 4: 1})
            again.start(containers=[long, mine])
            wait_until_gone(plugin.children())
            assert held() == [identity]
            taken_away(plugin, again, identity)
