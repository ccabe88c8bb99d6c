"""The broker from its start to its end: its socket, signals, limits, and what it leaves."""

import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from oci_bpf_hook.errors import NO_BROKER
from tests.support.broker import Broker
from tests.support.peers import ASK, by, refused
from tests.support.places import ROOT
from tests.support.scratch import install
from tests.support.users import ALICE, BOB, GROUP

pytestmark = pytest.mark.usefixtures("everybody")


def test_sigterm_finishes_what_has_begun(broker: Broker) -> None:
    with by(ALICE) as peer, by(BOB) as silent:
        silent.do("connect")
        assert "granted" in peer.ask(ASK)
        broker.process.terminate()
        refused(silent.receive()[0], NO_BROKER, "stopping")
        answer, fds = peer.mount()
        assert (answer, fds) == ({"version": 1, "mounted": True}, ["/"])
        assert broker.process.wait(10) == 0
        assert "error" in peer.do("connect")


def test_a_socket_from_systemd_and_the_end_when_idle() -> None:
    with Broker("--idle", "0.01", passed=True) as broker:
        assert broker.process.wait(10) == 0
    with Broker("--idle", "5", passed=True) as broker, by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_isnt_one(tmp_path: Path, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(tmp_path / "s"))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        exec_it = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0'
        command = [sys.executable, "-m", "oci_bpf_hook", "broker"]
        done = subprocess.run(
            ["sh", "-c", exec_it, "sh", *command],
            cwd=ROOT,
            stdin=sock.fileno(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == NO_BROKER
    assert "ListenSequentialPacket" in done.stderr


def test_a_second_broker(broker: Broker) -> None:
    command = [sys.executable, "-m", "oci_bpf_hook", "broker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == NO_BROKER
    assert "another broker already listens" in done.stderr
    with by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


def test_killed_it_needs_no_cleaning_up() -> None:
    with Broker() as broker:
        broker.kill()
    with Broker(), by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


def test_its_requests_end_with_it(broker: Broker) -> None:
    with by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)
        (child,) = broker.children()
        pidfd = os.pidfd_open(child)
        try:
            broker.kill()
            assert select.select([pidfd], [], [], 10)[0]
        finally:
            os.close(pidfd)
        assert peer.receive()[0] == {}


def test_the_sockets_mode_and_group(tmp_path: Path) -> None:
    path = tmp_path / "a" / "s"
    with Broker("--mode", "0660", "--group", GROUP[0], path=str(path)):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert (status.st_uid, status.st_gid) == (0, GROUP[1])
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    with Broker() as broker:
        assert stat.S_IMODE(Path(broker.path).stat().st_mode) == 0o666


@pytest.mark.parametrize(
    ("prefix", "words"),
    [(["unshare", "-Ur"], "initial user namespace"), (["setpriv", "--reuid=61001"], "root's")],
)
def test_where_it_cant_work(prefix: list[str], words: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        package = install(Path(directory) / "installed").parent
        command = [*prefix, "/usr/bin/python3", "-m", "oci_bpf_hook", "broker"]
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert (done.returncode, words in done.stderr) == (NO_BROKER, True), done.stderr


def test_hundreds_of_requests_leave_nothing(broker: Broker) -> None:
    """Granted, refused, broken off, and no request at all; each could leave an fd or a process."""
    mounts = Path("/proc/self/mountinfo").read_text()
    fds = broker.fds()
    with by(ALICE) as alice, by(BOB) as bob:
        for peer in (alice, bob):
            peer.begin_many(200, ASK)
        assert [peer.end_many() for peer in (alice, bob)] == [100, 100]
    broker.quiet(fds)
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_few_file_descriptors() -> None:
    """Whoever has most of the connections loses the oldest for somebody else's."""
    few = ["prlimit", "--nofile=48:48", "--"]
    with Broker(patient=True, prefix=few), by(ALICE) as peer, by(BOB) as bob:
        assert peer.do("connect", count=60) == {}
        assert "granted" in bob.ask(ASK)
        assert bob.mount()[1] == ["/"]
        refused(peer.receive(number=0)[0], NO_BROKER, "too many requests")


def test_the_directory_is_made_and_no_other_is_changed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    with Broker(path=str(tmp_path / "there" / "s")):
        assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o700
