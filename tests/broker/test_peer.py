"""Who asks the broker, by the kernel's word."""

import ctypes
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.broker.peer import Peer
from oci_bpf_hook.container.namespaces import Container, Process
from oci_bpf_hook.container.nesting import is_nested, outermost_owner
from oci_bpf_hook.errors import BAD_STATE, NO_USER_NAMESPACE, HookError
from oci_bpf_hook.running.owner import user_behind
from oci_bpf_hook.users import AUTO_USER, NOBODY
from tests.support import broker as support
from tests.support.sandbox import FIREJAIL, bubblewrap
from tests.support.scratch import FIRST_ID, Scratch
from tests.support.users import ALICE, BOB, GROUP, appended

pytestmark = pytest.mark.usefixtures("everybody")


@pytest.fixture(autouse=True)
def no_fd_is_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@contextmanager
def connected(prefix: list[str], tmp_path: Path) -> Iterator[tuple[socket.socket, support.Peer]]:
    """A connection from a process behind `prefix`, as a broker gets it."""
    os.chmod(tmp_path, 0o711)
    path = f"/run/obh-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        try:
            os.chmod(path, 0o666)
            listening.listen()
            with support.Peer(prefix, path) as process:
                assert process.do("connect") == {}
                sock, _ = listening.accept()
                with sock:
                    yield sock, process
        finally:
            os.unlink(path)


def test_a_container_of_roots(tmp_path: Path) -> None:
    with (
        Scratch() as container,
        connected(container.entering(), tmp_path) as (sock, process),
        Peer(sock) as peer,
    ):
        assert (peer.pid, peer.uid, peer.gid) == (process.process.pid, FIRST_ID, FIRST_ID)
        assert peer.user() == peer.share() == 0
        assert peer.unchanged()
        namespace = os.stat(f"/proc/{container.init.pid}/ns/user").st_ino
        assert os.fstat(peer.container.user).st_ino == namespace


def test_a_users_own(tmp_path: Path) -> None:
    prefix = ALICE.running(support.ALONE)
    with connected(prefix, tmp_path) as (sock, _), Peer(sock) as peer:
        assert peer.uid == ALICE.uid
        assert peer.user() == ALICE.uid
        # As root of a namespace one has only the groups that it maps; alice's are the host's word.
        assert set(peer.groups(ALICE.uid)) == {ALICE.uid, GROUP[1]}
        assert set(peer.groups(BOB.uid)) == {BOB.uid, GROUP[1]}


def test_a_group_that_was_brought_along(tmp_path: Path) -> None:
    """One that the session has and the database doesn't know, as after newgrp(1)."""
    ids = [f"--reuid={BOB.uid}", f"--regid={BOB.uid}", "--groups", f"{BOB.uid},64000"]
    prefix = ["setpriv", *ids, "--", *support.ALONE]
    with connected(prefix, tmp_path) as (sock, _), Peer(sock) as peer:
        assert set(peer.groups(BOB.uid)) == {BOB.uid, 64000}


def test_a_group_that_its_namespace_gives(tmp_path: Path) -> None:
    """Root of a namespace may be in any group that is mapped there: that proves nothing."""
    inside = ["setpriv", "--groups", "5", "--regid", "6", "--"]
    with (
        Scratch() as container,
        connected([*container.entering(), *inside], tmp_path) as (sock, _),
        Peer(sock) as peer,
    ):
        assert peer.gid == FIRST_ID + 6
        assert set(peer.groups(0)).isdisjoint((FIRST_ID + 5, FIRST_ID + 6))


def test_it_goes_elsewhere(tmp_path: Path) -> None:
    for flags in (0x20000, 0x10000000):
        prefix = ALICE.running(support.ALONE)
        with connected(prefix, tmp_path) as (sock, process), Peer(sock) as peer:
            assert peer.unchanged()
            assert process.do("unshare", flags=flags) == {}
            assert not peer.unchanged()


def test_it_ends(tmp_path: Path) -> None:
    with connected(ALICE.running(support.ALONE), tmp_path) as (sock, process):
        with Peer(sock) as peer:
            process.process.kill()
            process.process.wait()
            assert not peer.unchanged()
        with pytest.raises(HookError) as caught:
            Peer(sock)
        assert caught.value.code == BAD_STATE


def test_its_pid_is_somebody_elses(tmp_path: Path) -> None:
    """The kernel's pidfd is of the process that connected, whoever has its number now."""
    with connected(ALICE.running(support.ALONE), tmp_path) as (sock, process):
        pid = process.process.pid
        process.process.kill()
        process.process.wait()
        with _started_as(pid):
            # What is there by that number is a container, too.
            Container(pid).close()
            with pytest.raises(HookError) as caught:
                Peer(sock)
            assert caught.value.code == BAD_STATE


@contextmanager
def _started_as(pid: int) -> Iterator[None]:
    """A process in a user and mount namespace of its own with this pid (clone3, set_tid)."""
    ours, theirs = os.pipe()
    set_tid = ctypes.c_int(pid)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
    # set_tid, set_tid_size.
    fields = [0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(set_tid), 1]
    arguments = struct.pack("=10Q", *fields)
    clone3 = 435  # On every architecture but alpha.
    if ctypes.CDLL(None).syscall(clone3, arguments, len(arguments)) == 0:
        os.dup2(theirs, 1)
        stays = "echo; exec tail -f /dev/null"
        os.execv("/usr/bin/unshare", ["unshare", "-U", "-r", "-m", "sh", "-c", stays])
    try:
        os.close(theirs)
        assert os.read(ours, 1) == b"\n"
        yield
    finally:
        os.close(ours)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        (["env", "--"], "no user namespace of its own"),
        (["unshare", "--user", "--map-root-user", "--"], "no mount namespace of its own"),
        (["unshare", "--user", "--mount", "--"], "no id in its own user namespace"),
    ],
)
def test_who_is_refused(tmp_path: Path, prefix: list[str], words: str) -> None:
    with connected(ALICE.running(prefix), tmp_path) as (sock, _):
        with pytest.raises(HookError, match=words) as caught:
            Peer(sock)
        assert caught.value.code == NO_USER_NAMESPACE


# ---- root's namespaces that aren't root's --------------------------------------------------


@pytest.fixture(scope="module")
def bwrap(everybody: None) -> Iterator[list[str]]:
    with bubblewrap() as command:
        yield command


def test_a_set_user_id_sandbox_is_its_user_s(tmp_path: Path, bwrap: list[str]) -> None:
    """The kernel has it that root made the namespace, as bubblewrap was root when it did."""
    with (
        connected(ALICE.running(bwrap), tmp_path) as (sock, _),
        Peer(sock) as peer,
    ):
        assert outermost_owner(peer.container) == 0
        assert peer.user() == ALICE.uid
        # As in a namespace of her own, and not as root.
        assert peer.share() == ALICE.uid
    with connected(ALICE.running(support.ALONE), tmp_path) as (sock, _), Peer(sock) as peer:
        assert peer.share() == ALICE.uid


def test_firejail_as_packaged(tmp_path: Path) -> None:
    """Its mounts are the host's, and so whoever asks is in a namespace that was made in there."""
    inner = ["unshare", "--user", "--map-root-user", "--mount", "--"]
    with connected(ALICE.running(FIREJAIL), tmp_path) as (sock, _):
        with pytest.raises(HookError) as caught:
            Peer(sock)
        assert caught.value.code == NO_USER_NAMESPACE
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        with Process(struct.unpack("=iII", credentials)[0]) as found:
            assert outermost_owner(found) == 0
            assert user_behind(found) == ALICE.uid
    with (
        connected(ALICE.running([*FIREJAIL, *inner]), tmp_path) as (sock, _),
        Peer(sock) as peer,
    ):
        assert outermost_owner(peer.container) == 0
        assert peer.user() == ALICE.uid


def test_a_sandbox_of_who_is_no_account(tmp_path: Path, bwrap: list[str]) -> None:
    """As where the engine was told --user 61990, and the image has a set-user-id sandbox."""
    ids = ["setpriv", "--reuid=61990", "--regid=61990", "--clear-groups", "--"]
    with connected([*ids, *bwrap], tmp_path) as (sock, _), Peer(sock) as peer:
        assert outermost_owner(peer.container) == 0
        assert peer.user() == 61990


def test_a_namespace_within_a_sandbox(tmp_path: Path, bwrap: list[str]) -> None:
    """It is the outermost one's map that counts, and a process in that alone tells it."""
    stays = [*bwrap[:-1], "--unshare-pid", "--"]  # bubblewrap is that namespace's first process.
    for sandbox, user in ((stays, ALICE.uid), (bwrap, NOBODY)):
        inner = ["unshare", "--user", "--map-root-user", "--mount", "--"]
        with (
            connected(ALICE.running([*sandbox, *inner]), tmp_path) as (sock, _),
            Peer(sock) as peer,
        ):
            assert is_nested(peer.container)
            assert peer.user() == user
            assert peer.share() not in (0, ALICE.uid)


@contextmanager
def mapped(lines: str) -> Iterator[Process]:
    """A process in a user namespace of root's with that uid_map."""
    with subprocess.Popen(
        ["unshare", "--user", "--mount", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"
        Path(f"/proc/{process.pid}/uid_map").write_text(lines)
        with Process(process.pid) as found:
            yield found


@pytest.mark.parametrize(
    ("lines", "subuid", "wanted"),
    [
        # unshare -Ur of root's, and an engine's with a range of nobody's.
        ("0 0 1", "", 0),
        ("0 7000000 65536", "", 0),
        ("0 7000000 65536", "containers:6000000:9000000\n", 0),
        ("0 7000000 65536", "root:7000000:65536\n", 0),
        # systemd, for a service with PrivateUsers=yes and User=.
        (f"0 0 1\n{ALICE.uid} {ALICE.uid} 1", "", ALICE.uid),
        # A set-user-id sandbox, whoever its user is in there, and for whom.
        (f"0 {ALICE.uid} 1", "", ALICE.uid),
        (f"0 {NOBODY} 1\n{ALICE.uid} {ALICE.uid} 1", "", ALICE.uid),
        (f"0 {NOBODY} 1", "", NOBODY),
        ("0 61990 1", "", 61990),
        ("0 7000000 1", f"{ALICE.name}:7000000:65536\n", ALICE.uid),
        # A rootful container in what is a user's range, as a whole or with its last id.
        ("0 7000000 65536", f"{ALICE.name}:7000000:65536\n", ALICE.uid),
        ("0 7000000 65536", f"{ALICE.uid}:7065535:1\n", ALICE.uid),
        ("0 7000000 65536", f"{ALICE.uid}:7065536:1\n", 0),
        ("0 7000000 10\n10 7000020 10", f"{ALICE.uid}:7000010:10\n", 0),
        ("0 0 1\n1 7000000 65535", f"{ALICE.name}:7000000:65536\n", ALICE.uid),
        # One with the ids of accounts: all of them, or a few.
        ("0 0 65536", "", NOBODY),
        (f"0 {ALICE.uid} 2", "", NOBODY),
        (f"0 {ALICE.uid - 1} 2", "", ALICE.uid),
        # That of several, whoever of them it may be.
        (
            "0 7000000 65536",
            f"{ALICE.name}:7000000:9\n{BOB.name}:7000009:9\n",
            NOBODY,
        ),
        (f"0 {ALICE.uid} 1\n1 7000000 9", f"{BOB.name}:7000000:9\n", NOBODY),
    ],
)
def test_whose_a_namespace_of_root_s_is(
    tmp_path: Path, lines: str, subuid: str, wanted: int
) -> None:
    file = tmp_path / "subuid"
    file.write_text(subuid)
    with mapped(f"{lines}\n") as process:
        assert outermost_owner(process) == 0
        assert user_behind(process, str(file)) == wanted


@pytest.mark.parametrize(
    ("name", "uid", "wanted"),
    [(AUTO_USER, 899, 0), (AUTO_USER, 1000, 1000), ("obh-carol", 899, 899)],
)
def test_podman_s_own_user_for_root_s_containers(
    tmp_path: Path, name: str, uid: int, wanted: int
) -> None:
    """shadow 4.20 wants it to exist, and root's containers stay root's, unless a person has it."""
    file = tmp_path / "subuid"
    file.write_text(f"{name}:6000000:9000000\n")
    with (
        appended(Path("/etc/passwd"), [f"{name}:x:{uid}:{uid}::/:/usr/sbin/nologin"]),
        mapped("0 7000000 65536\n") as process,
    ):
        assert user_behind(process, str(file)) == wanted


def test_one_without_ids() -> None:
    """No account has an id in it, so nobody can act in it, and root may count as its user."""
    with mapped("") as process:
        assert user_behind(process) == 0
