"""The units of the broker: what they allow is enough, and no more than that.

No systemd runs as pid 1 where these tests do; so each restriction is checked by itself: system
calls against those that a real broker makes, capabilities and file systems by taking them away.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.pinned import CONFIG_VALUE
from oci_bpf_hook.kernel import syscalls
from oci_bpf_hook.paths import GUARD, SOCKET
from tests.support.broker import ALONE, Broker, Peer
from tests.support.pins import bpffs, pin
from tests.support.policy import AUDIT, POLICY, audited, in_force, trusting
from tests.support.scratch import Scratch, io
from tests.support.systemd import UNITS, allowed, bounded, run, settings
from tests.support.users import ALICE, users

SERVICE = UNITS / "oci-bpf-hook-broker.service"
SOCKET_UNIT = UNITS / "oci-bpf-hook-broker.socket"
ASK = io(delegate_cmds="map_create:prog_load")
# What takes the guard.
CONFINED = "version: 1\nrules: [{name: all, allow: {delegate_cmds: [map_create, prog_load]}}]\n"


@pytest.fixture(scope="module", autouse=True)
def everybody() -> Iterator[None]:
    with users():
        yield


def granted() -> bool:
    """Whether a user's container gets its mount."""
    with Peer(ALICE.running(ALONE)) as peer:
        answer = peer.ask(ASK)
        return "granted" in answer and peer.mount()[1] == ["/"]


def test_systemd_understands_them(tmp_path: Path) -> None:
    """But for the program, which isn't installed here."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/oci-bpf-hook", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    assert run("systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())) == ""


def test_the_socket_is_where_the_hook_looks() -> None:
    assert settings(SOCKET_UNIT)["ListenSequentialPacket"] == [SOCKET]
    assert settings(SOCKET_UNIT)["SocketMode"] == ["0666"]
    directory = str(Path(SOCKET).parent)
    assert settings(SERVICE)["ReadWritePaths"] == [directory]
    assert f"/var/log/{settings(SERVICE)['LogsDirectory'][0]}" == str(AUDIT.parent)


@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.stem)
def test_the_figures_that_the_readme_has(unit: Path) -> None:
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    figure = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert figure
    readme = (UNITS.parent / "README.md").read_text()
    assert f"`{unit.stem}` an exposure level of {figure[1]}" in " ".join(readme.split())


# ---- capabilities ------------------------------------------------------------------------------


(CAPABILITIES,) = (value.split() for value in settings(SERVICE)["CapabilityBoundingSet"])


def test_these_capabilities_are_enough() -> None:
    with Broker(prefix=bounded(CAPABILITIES)):
        before = len(audited())
        assert granted()
        assert len(audited()) == before + 1


# CAP_KILL isn't needed for a grant, but for ending what a user has stopped (test_worker).
@pytest.mark.parametrize("without", [name for name in CAPABILITIES if name != "CAP_KILL"])
def test_each_is_needed(without: str) -> None:
    with Broker(prefix=bounded([name for name in CAPABILITIES if name != without])):
        assert not granted()


# ---- system calls ------------------------------------------------------------------------------


def test_the_system_calls_of_all_that_it_does(tmp_path: Path) -> None:
    """Grants, refusals of every kind, a new policy, signals, and the end of it."""
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-o", str(trace), "--"]
    with bpffs(), Broker(prefix=strace) as broker:
        pin()
        (pid,) = broker.children()
        assert granted()
        with Peer(ALICE.running(ALONE)) as peer:
            for annotations in (io(delegate_cmds="hsah"), io(mode="0755", **_ASKED), {}):
                peer.ask(annotations)
            peer.ask(io(mode="2755", **_ASKED))
            peer.mount()
            broken, same = "version: 1\nrules: [{x}]\n", POLICY.read_text() + "\n"
            for text in (None, CONFINED, broken, same):
                with in_force(text):
                    peer.ask(ASK)
        with Scratch() as scratch, Peer(scratch.entering()) as peer:
            assert "granted" in peer.ask(ASK)
        os.kill(pid, signal.SIGHUP)
        assert granted()
        # Not strace, which would leave it alone.
        os.kill(pid, signal.SIGTERM)
        assert broker.process.wait(10) == 0
    calls = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"bpf", "fsopen", "fsconfig", "fsmount", "setns", "alarm"} <= calls
    assert calls - allowed(SERVICE) == _ITS_OWN_SOCKET


_ASKED = {"delegate_cmds": "map_create"}
# Only where it makes its socket itself.
_ITS_OWN_SOCKET = {"lchown"}


# ---- what it sees ------------------------------------------------------------------------------


@contextmanager
def confined() -> Iterator[list[str]]:
    """A command that runs another as ProtectSystem=strict and ProcSubset=pid have it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        script = Path(directory) / "confine"
        script.write_text(
            "#!/bin/sh -e\n"
            "mount --make-rprivate /\n"
            f"for path in {Path(SOCKET).parent} {AUDIT.parent}; do\n"
            '    mkdir -p "$path"; mount --bind "$path" "$path"; done\n'
            "mount -t proc -o subset=pid,nosuid,nodev,noexec proc /proc\n"
            "mount -o remount,bind,ro /; mount -o remount,bind,ro /run\n"
            "mount -o remount,bind,ro /etc; mount -o remount,bind,ro /var/log\n"
            "mount --rbind /sys /sys; mount -o remount,bind,ro /sys\n"
            "! mountpoint -q /sys/fs/bpf || mount -o remount,bind,ro /sys/fs/bpf\n"
            'exec "$@"\n'
        )
        script.chmod(0o755)
        yield ["unshare", "-m", "--", str(script)]


def test_it_works_where_it_may_write_nothing_else() -> None:
    with confined() as prefix, Broker(prefix=prefix):
        before = len(audited())
        assert granted()
        with in_force(POLICY.read_text() + "# changed\n"):
            assert granted()
        assert len(audited()) == before + 2


def test_it_sees_every_process_of_a_container_of_root_s() -> None:
    """And so may say that none of them shares the host's network."""
    text = (
        "version: 1\nrules:\n- {name: own, match: {user: root, host_network: false}, "
        "allow: {delegate_cmds: [any]}}\n"
    )
    with (
        confined() as prefix,
        Broker(prefix=[*prefix, *bounded(CAPABILITIES)]),
        in_force(trusting(text)),
        Scratch(network=True) as scratch,
        Peer(scratch.entering()) as peer,
    ):
        assert peer.ask(ASK)["rule"] == "own"


def test_it_sees_the_guard_where_sys_is_read_only() -> None:
    """Only the bpffs itself is asked: bpf_obj_do_get() looks at permissions, not at the mount."""
    with bpffs(), confined() as prefix:
        pin()
        with Broker(prefix=prefix), in_force(CONFINED), Peer(ALICE.running(ALONE)) as peer:
            answer = peer.ask(ASK)
        assert "the guard is of another version (0, " in str(answer)
        # And is written to: a mark is an element of a map, and not a file.
        script = f"""
import sys
from oci_bpf_hook.kernel import syscalls
fd = syscalls.bpf_obj_get(b"{MARKS}")
syscalls.bpf_map(syscalls.BPF_MAP_UPDATE_ELEM, fd, bytes(4), bytes([7]) * {CONFIG_VALUE.size})
"""
        run(*prefix, *bounded(CAPABILITIES), sys.executable, "-c", script)
        fd = syscalls.bpf_obj_get(MARKS.encode())
        value = syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, fd, bytes(4), CONFIG_VALUE.size)
        os.close(fd)
        assert value == bytes([7]) * CONFIG_VALUE.size


MARKS = f"{GUARD}/{guard.MARKS}"


def test_memory_is_never_both_written_and_run() -> None:
    """PR_SET_MDWE, as MemoryDenyWriteExecute= uses it where the kernel has it (6.3)."""
    script = (
        "import ctypes, os, sys\n"
        "assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0\n"
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    with Broker(prefix=["/usr/bin/python3", "-c", script]):
        assert granted()


def test_the_program_is_where_it_is_installed() -> None:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SERVICE)
    program, command = parser["Service"]["ExecStart"].split()
    assert (program, command) == ("/usr/bin/oci-bpf-hook", "broker")
    assert shutil.which("kill") == parser["Service"]["ExecReload"].split()[0].replace(
        "/bin", "/usr/bin"
    )
