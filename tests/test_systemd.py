"""The units of the broker: what they allow is enough, and no more than that.

No systemd runs as pid 1 where these tests do; so each restriction is checked by itself: system
calls against those that a real broker makes, capabilities and file systems by taking them away.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from oci_bpf_hook.client import SOCKET
from tests.support.broker import ALONE, Broker, Peer
from tests.support.policy import AUDIT, POLICY, audited, in_force
from tests.support.scratch import io
from tests.support.users import ALICE, users

UNITS = Path(__file__).parents[1] / "contrib" / "systemd"
SERVICE = UNITS / "oci-bpf-hook-broker.service"
SOCKET_UNIT = UNITS / "oci-bpf-hook-broker.socket"
ASK = io(delegate_cmds="map_create:prog_load")


@pytest.fixture(scope="module", autouse=True)
def everybody() -> Iterator[None]:
    with users():
        yield


def settings(unit: Path) -> dict[str, list[str]]:
    """All settings of a unit, each with every value that it is given."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def granted() -> bool:
    """Whether a user's container gets its mount."""
    with Peer(ALICE.running(ALONE)) as peer:
        answer = peer.ask(ASK)
        return "granted" in answer and peer.mount()[1] == ["/"]


def test_systemd_understands_them(tmp_path: Path) -> None:
    """But for the program, which isn't installed here."""
    for unit in (SERVICE, SOCKET_UNIT):
        text = unit.read_text().replace("/usr/bin/oci-bpf-hook", "/bin/true")
        (tmp_path / unit.name).write_text(text)
    assert run("systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())) == ""


def test_the_socket_is_where_the_hook_looks() -> None:
    assert settings(SOCKET_UNIT)["ListenSequentialPacket"] == [SOCKET]
    assert settings(SOCKET_UNIT)["SocketMode"] == ["0666"]
    directory = str(Path(SOCKET).parent)
    assert settings(SERVICE)["ReadWritePaths"] == [directory]
    assert f"/var/log/{settings(SERVICE)['LogsDirectory'][0]}" == str(AUDIT.parent)


def test_the_figure_that_the_readme_has() -> None:
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", str(SERVICE))
    figure = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert figure
    readme = (UNITS.parent / "README.md").read_text()
    assert f"exposure level of {figure[1]}" in readme


# ---- capabilities ------------------------------------------------------------------------------


def bounded(capabilities: list[str]) -> list[str]:
    """A command that runs another with no more than these capabilities."""
    names = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{names}", "--"]


(CAPABILITIES,) = (value.split() for value in settings(SERVICE)["CapabilityBoundingSet"])


def test_these_capabilities_are_enough() -> None:
    with Broker(prefix=bounded(CAPABILITIES)):
        before = len(audited())
        assert granted()
        assert len(audited()) == before + 1


# CAP_KILL isn't needed for a grant, but for ending what a user has stopped (test_session).
@pytest.mark.parametrize("without", [name for name in CAPABILITIES if name != "CAP_KILL"])
def test_each_is_needed(without: str) -> None:
    with Broker(prefix=bounded([name for name in CAPABILITIES if name != without])):
        assert not granted()


# ---- system calls ------------------------------------------------------------------------------


@cache
def group(name: str) -> frozenset[str]:
    """The system calls of one of systemd's groups."""
    found: set[str] = set()
    for line in run("systemd-analyze", "syscall-filter", name).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= group(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return frozenset(found)


def allowed() -> set[str]:
    """What the unit's SystemCallFilter= allows."""
    # systemd adds this one to every list of what is allowed.
    found = set(group("@default"))
    for value in settings(SERVICE)["SystemCallFilter"]:
        words = value.removeprefix("~").split()
        calls = {call for word in words for call in (group(word) if word[0] == "@" else {word})}
        found = found - calls if value.startswith("~") else found | calls
    return found


def test_the_system_calls_of_all_that_it_does(tmp_path: Path) -> None:
    """Grants, refusals of every kind, a new policy, signals, and the end of it."""
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-qq", "-o", str(trace), "--"]
    with Broker(prefix=strace) as broker:
        (pid,) = broker.children()
        assert granted()
        with Peer(ALICE.running(ALONE)) as peer:
            for annotations in (io(delegate_cmds="hsah"), io(mode="0755", **_ASKED), {}):
                peer.ask(annotations)
            peer.ask(io(mode="2755", **_ASKED))
            peer.mount()
            for text in (None, "version: 1\nrules: [{x}]\n", POLICY.read_text() + "\n"):
                with in_force(text):
                    peer.ask(ASK)
        os.kill(pid, signal.SIGHUP)
        assert granted()
        # Not strace, which would leave it alone.
        os.kill(pid, signal.SIGTERM)
        assert broker.process.wait(10) == 0
    calls = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"fsopen", "fsconfig", "fsmount", "setns", "alarm"} <= calls
    assert calls - allowed() == _ITS_OWN_SOCKET


_ASKED = {"delegate_cmds": "map_create"}
# Only where it makes its socket itself.
_ITS_OWN_SOCKET = {"chown"}


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
