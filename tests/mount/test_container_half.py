"""The container half by itself: what it is, what it says, and what it takes back.

A test is the host half here, and may end, or fall silent, wherever it likes.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.container.namespaces import Container
from oci_bpf_hook.kernel import syscalls
from oci_bpf_hook.mount import container_half
from tests.support.scratch import FIRST_ID, LIMIT, Scratch
from tests.support.tracer import fds

PATH = b"/opt/new/deep"


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch() as container:
        yield container


class Half:
    """A container half that a test holds the other end of."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock = sock
        self.pid = pid

    def read(self, kind: bytes) -> tuple[bytes, int]:
        """The next message, which is of `kind`, and the fd that came with it or -1."""
        message, received, _, _ = socket.recv_fds(self.sock, container_half.LONGEST, 1)
        assert message[:1] == kind, message
        return message, received[0] if received else -1

    def order(self, path: bytes = PATH, mode: int = 0o1777) -> None:
        self.sock.send(container_half.MODE.pack(mode) + path)

    def create(self) -> int:
        """Have the mount made and attached; an fd on it."""
        message, context = self.read(container_half.MAKING)
        assert container_half.MISSING.unpack(message) == (container_half.MAKING, 2, 0)
        _, context = self.read(container_half.PLACED)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
        os.close(context)
        self.sock.send(container_half.CREATED)
        _, mount = self.read(container_half.PLACED)
        self.sock.send(container_half.ATTACH)
        self.read(container_half.ATTACHED)
        return mount

    def end(self) -> None:
        """Say nothing more, and wait until it has ended by itself."""
        self.sock.shutdown(socket.SHUT_WR)
        try:
            while self.sock.recv(container_half.LONGEST):
                pass
        except ConnectionResetError:  # It hasn't read everything.
            pass
        _, status = os.waitpid(self.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        self.pid = 0


@contextmanager
def half(scratch: Scratch, *, parent: int | None = None, root: str = "") -> Iterator[Half]:
    with Container(scratch.init.pid) as container:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(LIMIT)
        us = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            os.setgroups([7, 8])
            container_half.run(
                theirs, container, root or str(scratch.root), parent or us, seconds=LIMIT
            )
        theirs.close()
        running = Half(ours, pid)
        try:
            yield running
        finally:
            ours.close()
            if running.pid:
                os.kill(pid, 9)
                os.waitpid(pid, 0)


@contextmanager
def joined(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> Iterator[Half]:
    """One that is where it is to be, and waits for its order."""
    order = container_half.order_of

    def say_so(sock: socket.socket, seconds: int) -> bytes:
        sock.send(b"?")
        return order(sock, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(container_half, "order_of", say_so)
        with half(scratch) as running:
            running.read(b"?")
            yield running


# ---- what it is ------------------------------------------------------------------------


def test_where_it_is(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(scratch, monkeypatch) as running:
        theirs = Path(f"/proc/{scratch.init.pid}/ns")
        its = Path(f"/proc/{running.pid}/ns")
        same = [
            name
            for name in ("user", "mnt")
            if os.readlink(its / name) == os.readlink(theirs / name)
        ]
        assert same == ["user", "mnt"]
        assert os.readlink(its / "pid") == os.readlink("/proc/self/ns/pid")
        running.end()


def test_who_it_is(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(scratch, monkeypatch) as running:
        lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
        status = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
        assert status["Uid"] == status["Gid"] == [str(FIRST_ID)] * 4
        assert status["Groups"] == []
        running.end()


def test_its_standard_streams_are_closed(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(scratch, monkeypatch) as running:
        ours = {os.readlink(f"/proc/self/fd/{number}") for number in range(3)}
        for number, what in fds(running.pid).items():
            if number < 3:  # What it has opened itself since: directories to look from.
                flags = Path(f"/proc/{running.pid}/fdinfo/{number}").read_text().split("\n")[1]
                assert int(flags.split()[1], 8) & os.O_PATH
                assert what not in ours
        running.end()


TRACER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
def trace(request):
    result = libc.ptrace(request, pid, None, None)
    return "traced" if result == 0 else os.strerror(ctypes.get_errno())
print(trace(0x4206))  # PTRACE_SEIZE
for name in ("mem", "environ", "maps", "root", "fd/0", "ns/user"):
    flags = os.O_RDONLY if name in ("environ", "maps", "ns/user") else os.O_PATH
    flags = os.O_RDWR if name == "mem" else flags
    try:
        os.close(os.open(f"/proc/{pid}/{name}", flags))
        print(name)
    except OSError as error:
        print(error.strerror)
"""


def test_the_container_cannot_look_into_it(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its root, with every capability that there is in its user namespace."""
    look = ("/usr/bin/python3", "-ISc", TRACER)
    with joined(scratch, monkeypatch) as running:
        tried = scratch.enter(*look, str(running.pid)).stdout.split("\n")
        assert tried[0] == "Operation not permitted"
        assert set(tried[1:-1]) == {"Permission denied"}
        running.end()
    with scratch.running() as other:
        # Of any other process there it can.
        assert scratch.enter(*look, str(other.pid)).stdout.startswith("traced\nmem\n")


# ---- what it leaves --------------------------------------------------------------------


def test_it_is_told_nothing(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    with joined(scratch, monkeypatch) as running:
        running.end()
    scratch.assert_untouched()


def test_its_parent_has_gone_before_it_could_notice(scratch: Scratch) -> None:
    with half(scratch, parent=1) as running:
        assert running.sock.recv(1) == b""
        running.end()
    scratch.assert_untouched()


def test_nothing_after_the_order(scratch: Scratch) -> None:
    with half(scratch) as running:
        running.order()
        running.read(container_half.MAKING)
        running.read(container_half.PLACED)
        assert (scratch.root / "opt/new/deep").is_dir()
        running.end()
    scratch.assert_untouched()


@pytest.mark.parametrize("answer", [b"", container_half.KEEP])
def test_not_allowed_to_make_directories_on_another_mount(answer: bytes) -> None:
    """It says which, waits for the word, and ends without one."""
    setup = "os.mkdir(root + '/own'); mount(root + '/own', root + '/opt', None, BIND)"
    with Scratch(setup=setup) as container, half(container) as running:
        running.order(b"/opt/new/deep")
        message, _ = running.read(container_half.MAKING)
        _, missing, mount = container_half.MISSING.unpack(message)
        assert (missing, mount > 0) == (2, True)
        if answer:
            running.sock.send(answer)
        running.end()
        assert list((container.root / "own").iterdir()) == []


def test_something_else_than_created(scratch: Scratch) -> None:
    with half(scratch) as running:
        running.order()
        running.read(container_half.MAKING)
        running.read(container_half.PLACED)
        running.sock.send(container_half.KEEP)
        running.end()
    scratch.assert_untouched()


def test_nothing_is_attached_before_it_is_told_to_be(scratch: Scratch) -> None:
    with half(scratch) as running:
        running.order()
        running.read(container_half.MAKING)
        _, context = running.read(container_half.PLACED)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
        os.close(context)
        running.sock.send(container_half.CREATED)
        _, mount = running.read(container_half.PLACED)
        # Whoever grants marks it now, and nobody in the container can have made a token of it.
        assert scratch.mounts() == []
        os.close(mount)
        running.end()
    scratch.assert_untouched()


def test_created_where_nothing_was(scratch: Scratch) -> None:
    with half(scratch) as running:
        running.order()
        running.read(container_half.MAKING)
        running.read(container_half.PLACED)
        running.sock.send(container_half.CREATED)
        message, _ = running.read(container_half.FAILED)
        assert message.split(b"\0")[-3].endswith(b"fsmount")
        running.end()
    scratch.assert_untouched()


@pytest.mark.parametrize("last", [b"", b"kept", container_half.CREATED])
def test_not_kept(scratch: Scratch, last: bytes) -> None:
    with half(scratch) as running:
        running.order()
        os.close(running.create())
        assert len(scratch.mounts()) == 1
        if last:
            running.sock.send(last)
        running.end()
    scratch.assert_untouched()


def test_kept(scratch: Scratch) -> None:
    with half(scratch) as running:
        running.order()
        os.close(running.create())
        running.sock.send(container_half.KEEP)
        running.end()
    assert len(scratch.mounts()) == 1


def test_what_others_have_put_there_stays(scratch: Scratch) -> None:
    with half(scratch) as running:
        running.order()
        mount = running.create()
        os.close(mount)
        (scratch.root / "opt/new/theirs").touch()
        running.end()
    assert scratch.mounts() == []
    assert os.listdir(scratch.root / "opt/new") == ["theirs"]


def test_its_mount_is_found_wherever_it_has_gone(scratch: Scratch) -> None:
    with half(scratch) as running:
        running.order()
        os.close(running.create())
        above, other = (str(scratch.root / name) for name in ("opt/new", "opt/other"))
        assert scratch.enter("mv", above, other).returncode == 0
        running.end()
    assert scratch.mounts() == []


@pytest.mark.parametrize("made", [0, 1, 2])
@pytest.mark.parametrize("attached", [True, False])
def test_undo(scratch: Scratch, made: int, attached: bool) -> None:
    """After one that was killed: its mount, and as many directories as it had made."""
    with half(scratch) as running:
        running.order()
        mount = running.create()
        os.kill(running.pid, 9)
        os.waitpid(running.pid, 0)
        running.pid = 0
    assert len(scratch.mounts()) == 1
    if not attached:
        assert scratch.enter("umount", "-l", f"{scratch.root}/opt/new/deep").returncode == 0
        for name in ("opt/new/deep", "opt/new")[: 2 - made]:
            (scratch.root / name).rmdir()
    with Container(scratch.init.pid) as container:
        us = os.getpid()
        pid = os.fork()
        if pid == 0:
            container_half.undo(
                container, str(scratch.root), us, mount, [b"opt/new", b"opt/new/deep"]
            )
        os.waitpid(pid, 0)
    os.close(mount)
    scratch.assert_untouched()


# ---- what it says ----------------------------------------------------------------------


def failure(running: Half) -> list[str]:
    """The step, the reason and the file's name."""
    message, _ = running.read(container_half.FAILED)
    return message[container_half.FAILURE.size :].decode().split("\0")


def test_a_link(scratch: Scratch) -> None:
    (scratch.root / "opt/link").symlink_to("/tmp")
    with half(scratch) as running:
        running.order(b"/opt/link")
        step, reason, name = failure(running)
        assert (step, name) == ("path", "opt/link")
        assert reason.startswith("openat2: ")
        running.end()


def test_no_root(scratch: Scratch) -> None:
    with half(scratch, root="/nowhere") as running:
        assert failure(running) == ["root", "openat2: No such file or directory", "/nowhere"]
        running.end()


def test_a_name_that_is_no_text(scratch: Scratch) -> None:
    (scratch.root / "opt").chmod(0o000)
    os.chown(scratch.root / "opt", 0, 0)
    with half(scratch) as running:
        running.order(b"/opt/\xff\xfe")
        step, _, name = failure(running)
        assert (step, name) == ("path", r"opt/\xff\xfe")
        running.end()
