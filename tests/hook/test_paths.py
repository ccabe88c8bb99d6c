"""Root filesystems that want the mount, or a directory, to land outside of them."""

import ctypes
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.scratch import (
    FIRST_ID,
    LIMIT,
    Scratch,
    assert_failed,
    bpf_mounts,
    hooks_alive,
)
from tests.support.tracer import Call, trace

ASK = {"io.bpffs.delegate_cmds": "map_create:prog_load"}
LINK = "symbolic link"
NOT_DIRECTORY = "isn't a directory"
# In the rootfs as in a container that has its own: the host's, processes and all.
PROC = "import os; os.mkdir(root + '/proc'); mount('/proc', root + '/proc', None, BIND | REC)"


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


def ask(path: str) -> dict[str, str]:
    return {**ASK, "io.bpffs.path": path}


# ---- what is at the target -------------------------------------------------------------


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


THINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file": (Path.touch, NOT_DIRECTORY),
    "a fifo": (os.mkfifo, NOT_DIRECTORY),
    "a socket": (_socket, NOT_DIRECTORY),
    "a symlink to a directory in it": (lambda path: path.symlink_to("."), LINK),
    "a symlink to its root": (lambda path: path.symlink_to("/"), LINK),
    "a symlink to nothing": (lambda path: path.symlink_to("nothing"), LINK),
    "a symlink to itself": (lambda path: path.symlink_to(path.name), LINK),
    "a symlink to the host's": (lambda path: path.symlink_to("/tmp"), LINK),
    "a symlink upwards": (lambda path: path.symlink_to("../../../../tmp"), LINK),
    "a symlink to a magic link": (lambda path: path.symlink_to("/proc/1/root/tmp"), LINK),
    "a symlink to our own": (lambda path: path.symlink_to("/proc/self/root/tmp"), LINK),
}


@pytest.mark.parametrize("below", ["", "/sub", "/sub/deeper"], ids=["itself", "parent", "above"])
@pytest.mark.parametrize(("make", "words"), THINGS.values(), ids=THINGS)
def test_at_the_target(
    container: Scratch, make: Callable[[Path], None], words: str, below: str
) -> None:
    make(container.root / "opt/thing")
    result = container.hook(ask(f"/opt/thing{below}"))
    assert_failed(result, 16, "the target directory", words, container=container)


MAGIC = (
    "/proc/self/root/opt",
    "/proc/thread-self/root/opt",
    "/proc/self/cwd/new",
    "/proc/self/fd/0",
    "/proc/self/fd/3/new",
    "/proc/{pid}/root/opt",
    "/proc/{pid}/root/tmp/new",
    "/proc/{pid}/cwd",
    "/proc/{pid}/fd/0",
    "/proc/1/root",
    "/proc/1/cwd/new",
)


@pytest.mark.parametrize("path", MAGIC)
def test_magic_links(path: str) -> None:
    with Scratch(setup=PROC) as container:
        result = container.hook(ask(path.format(pid=container.init.pid)))
        assert_failed(result, 16, "the target directory", container=container)


@pytest.mark.parametrize("link", ["sys", "sys/fs", "sys/fs/bpf"])
def test_sys_is_a_symlink_to_the_hosts(link: str) -> None:
    above = os.path.dirname(link)
    with Scratch(tree=(above,)) as container:
        (container.root / link).symlink_to(f"/{link}")
        assert_failed(container.hook(ASK), 16, LINK, container=container)


def test_missing_on_a_read_only_filesystem() -> None:
    with Scratch(setup="mount('none', root + '/opt', 'tmpfs', RDONLY)") as container:
        result = container.hook(ask("/opt/new"))
        assert_failed(result, 16, "Read-only", "make it in the image", container=container)


def test_missing_in_a_directory_of_the_hosts_root(container: Scratch) -> None:
    os.chown(container.root / "opt", 0, 0)
    result = container.hook(ask("/opt/new"))
    assert_failed(result, 16, "Permission denied", "make it in the image", container=container)


@pytest.mark.parametrize("path", ["/opt/closed/bpf", "/opt/closed/there"])
def test_below_a_directory_that_the_containers_root_may_not_enter(
    container: Scratch, path: str
) -> None:
    closed = container.root / "opt/closed"
    (closed / "there").mkdir(parents=True)
    closed.chmod(0o700)
    result = container.hook(ask(path))
    assert_failed(result, 16, "the container's root may not go there")
    assert "missing" not in result.stderr
    assert container.mounts() == []


def test_missing_in_a_filesystem_of_the_hosts() -> None:
    with Scratch(setup=PROC) as container:
        result = container.hook(ask("/proc/new/deep"))
        assert_failed(result, 16, 'the volume at "/proc"', container=container)


def test_a_name_too_long_below_one_that_is_made(container: Scratch) -> None:
    result = container.hook(ask(f"/opt/new/{'x' * 256}"))
    assert_failed(result, 16, "File name too long", container=container)


# A file system of the container's own that is asked for a name and never answers.  The device is
# a node of ours, since the host's is for its root alone: struct fuse_in_header, and the answer
# to FUSE_INIT (26).
SILENT = """
import struct
fd = os.open(root + "/../fuse", os.O_RDWR)
options = f"fd={fd},rootmode=40755,user_id=0,group_id=0,allow_other"
mount("none", root + "/opt", "fuse", 0, options)
if os.fork() == 0:
    check(libc.prctl(1, 9))  # It ends with its parent.
    while True:
        _, opcode, unique = struct.unpack_from("IIQ", os.read(fd, 1 << 17))
        if opcode == 26:
            init = struct.pack("IIIIHHI", 7, 31, 0, 0, 0, 0, 4096) + bytes(40)
            os.write(fd, struct.pack("IiQ", 16 + len(init), 0, unique) + init)
"""


def test_a_file_system_that_does_not_answer() -> None:
    """Who waits for it can't be killed: the hook leaves it behind, and it ends with the wait."""
    with Scratch(setup=SILENT, devices={"fuse": (10, 229)}) as container:
        result = container.hook(ask("/opt/new"))
        assert (result.returncode, result.stdout) == (16, "")
        assert "the container half hung" in result.stderr
        assert container.mounts() == []
        (waiting,) = map(os.pidfd_open, hooks_alive())
    # The file system has gone with the container.
    assert select.select([waiting], [], [], LIMIT)[0]
    os.close(waiting)


# ---- where the root filesystem is ------------------------------------------------------


def test_the_rootfs_is_reached_through_a_symlink(container: Scratch, tmp_path: Path) -> None:
    """Storage may be behind one: this path is the engine's, not the container's."""
    link = tmp_path / "link"
    link.symlink_to(container.root)
    assert container.hook(ASK, root=str(link)).returncode == 0
    assert len(container.mounts()) == 1


def test_the_rootfs_is_reached_through_a_magic_link(container: Scratch) -> None:
    root = f"/proc/{container.init.pid}/root{container.root}"
    assert_failed(container.hook(ASK, root=root), 17, container=container)


@pytest.mark.parametrize("below", ["/opt", "/..", "/../bundle", "/opt/.."])
def test_a_root_that_is_beside_or_below(container: Scratch, below: str) -> None:
    result = container.hook(ASK, root=f"{container.root}{below}")
    if below == "/opt/..":
        assert result.returncode == 0
    else:
        assert_failed(result, 17, "no runtime has mounted it", container=container)


# ---- a race ----------------------------------------------------------------------------

RENAME_EXCHANGE = 2
SWAP = """
import ctypes, sys
rename = ctypes.CDLL(None).renameat2
one, other = (name.encode() for name in sys.argv[1:3])
print("swapping", flush=True)
while True:
    rename(-100, one, -100, other, 2)
"""
SWAPPED = {
    "the target": ("opt/target", "/opt/target"),
    "its parent": ("opt/target", "/opt/target/new"),
    "further up": ("opt", "/opt/a/b"),
}


def make_directory(path: Path) -> None:
    path.mkdir()
    os.chown(path, FIRST_ID, FIRST_ID)


def prepare(container: Scratch, swapped: str) -> tuple[str, str]:
    """The directory `swapped`, and a symlink that leads to a directory outside."""
    make_directory(container.outside / "victim")
    if swapped != "opt":
        make_directory(container.root / swapped)
    (container.root / "link").symlink_to(container.outside / "victim")
    return str(container.root / swapped), str(container.root / "link")


def swap(one: str, other: str) -> bool:
    rename = ctypes.CDLL(None).renameat2
    result: int = rename(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE)
    return result == 0


def take_off(container: Scratch, code: int, before: list[str]) -> None:
    """Nothing is mounted but what is below the root filesystem; that is taken off."""
    mounted = [line for line in bpf_mounts(container.init.pid) if line not in before]
    assert len(mounted) == (0 if code else 1)
    for mount in mounted:
        point = mount.split(" ")[4]
        assert point.startswith(f"{container.root}/")
        assert container.enter("umount", point).returncode == 0
    assert list((container.outside / "victim").iterdir()) == []


@pytest.mark.parametrize(("swapped", "path"), SWAPPED.values(), ids=SWAPPED)
def test_a_directory_is_swapped_with_a_symlink_outwards(
    container: Scratch, swapped: str, path: str
) -> None:
    names = prepare(container, swapped)
    before = bpf_mounts(container.init.pid)
    swapping = [*container.entering(), "/usr/bin/python3", "-ISc", SWAP, *names]
    with subprocess.Popen(swapping, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout
        swapper.stdout.readline()
        try:
            for _ in range(50):
                result = container.hook(ask(path))
                # For the mount to be where it is found.
                swapper.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, swapper.pid, os.WSTOPPED)
                if result.returncode:
                    assert_failed(result, 16, "the target directory")
                take_off(container, result.returncode, before)
                swapper.send_signal(signal.SIGCONT)
        finally:
            swapper.kill()
    assert bpf_mounts(container.init.pid) == before


@pytest.mark.parametrize(("swapped", "path"), SWAPPED.values(), ids=SWAPPED)
def test_it_is_swapped_at_each_step(swapped: str, path: str) -> None:
    """The same without luck: once in front of each call that the container half makes."""
    codes: list[int] = []
    done = True
    while done:
        done = False
        with Scratch() as container:
            names = prepare(container, swapped)

            def act(call: Call, names: tuple[str, str] = names) -> None:
                nonlocal done
                if call.pid == call.child and call.nth == len(codes) + 1:
                    assert swap(*names)
                    done = True

            before = bpf_mounts(container.init.pid)
            result = trace(container.state(ask(path)), act).result
            if result.returncode:
                assert_failed(result, 16, "the target directory")
            take_off(container, result.returncode, before)
        codes.append(result.returncode)
    # Before the path is looked up, and after.
    assert set(codes) == {16, 0}


def test_the_swapper_swaps(tmp_path: Path) -> None:
    """The tests above would pass with one that doesn't."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    assert swap(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a").is_symlink()
    assert not (tmp_path / "b").is_symlink()
