"""Each wrapper is the system call: it succeeds as the kernel does, and fails by its name."""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from oci_bpf_hook.kernel import bpf, syscalls
from oci_bpf_hook.kernel.arch import native
from tests.support.scratch import Scratch

PATH = os.O_PATH | os.O_CLOEXEC


@pytest.fixture
def root() -> Iterator[int]:
    fd = os.open("/", PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_openat2(root: int) -> None:
    fd = syscalls.openat2(root, b"proc/self", PATH, 0)
    try:
        assert os.path.samestat(os.fstat(fd), os.stat("/proc/self"))
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


RESOLVES = {
    "no symlinks": (b"proc/self", syscalls.RESOLVE_NO_SYMLINKS, errno.ELOOP),
    "no magic links": (b"proc/self/root", syscalls.RESOLVE_NO_MAGICLINKS, errno.ELOOP),
    "nothing there": (b"nowhere", 0, errno.ENOENT),
    "unknown flag": (b"proc", 1 << 40, errno.EINVAL),
}


@pytest.mark.parametrize(("path", "resolve", "number"), RESOLVES.values(), ids=RESOLVES)
def test_openat2_fails(root: int, path: bytes, resolve: int, number: int) -> None:
    with pytest.raises(OSError, match="openat2: ") as caught:
        syscalls.openat2(root, path, PATH, resolve)
    assert (caught.value.errno, caught.value.filename) == (number, path.decode())


def test_openat2_in_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "up").symlink_to("/../../etc")
    with ExitStack() as stack:
        directory = os.open(tmp_path, PATH)
        stack.callback(os.close, directory)
        fd = syscalls.openat2(directory, b"up", PATH, syscalls.RESOLVE_IN_ROOT)
        stack.callback(os.close, fd)
        assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "etc")


def test_fsopen_and_fsconfig() -> None:
    fd = syscalls.fsopen(b"tmpfs")
    try:
        assert not os.get_inheritable(fd)
        syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, b"mode", b"0700")
        with pytest.raises(OSError, match="fsconfig: Invalid argument") as caught:
            syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, b"no-such", b"x")
        assert caught.value.filename == "no-such"
        syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE, None, None)
        mount = syscalls.fsmount(fd, syscalls.MOUNT_ATTR_NOSUID)
        try:
            assert os.fstat(mount).st_mode & 0o7777 == 0o700
            assert os.fstatvfs(mount).f_flag & os.ST_NOSUID
            assert not os.get_inheritable(mount)
        finally:
            os.close(mount)
    finally:
        os.close(fd)


def test_fsopen_fails() -> None:
    with pytest.raises(OSError, match="fsopen: No such device") as caught:
        syscalls.fsopen(b"no-such-filesystem")
    assert caught.value.filename == "no-such-filesystem"


def test_fsmount_fails() -> None:
    fd = syscalls.fsopen(b"tmpfs")
    try:
        with pytest.raises(OSError, match="fsmount: Invalid argument"):
            syscalls.fsmount(fd, 0)
    finally:
        os.close(fd)


def test_statx_mount(root: int) -> None:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    (proc,) = (int(line[0]) for line in lines if line[4] == "/proc")
    for path, is_root in ((b"proc", True), (b"proc/sys", False)):
        fd = syscalls.openat2(root, path, PATH, 0)
        try:
            assert syscalls.statx_mount(fd) == (proc, is_root)
        finally:
            os.close(fd)


def _no_statx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_call_statx", lambda *arguments: 0)


def test_statx_of_a_kernel_that_leaves_it_out(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_statx(monkeypatch)
    with pytest.raises(OSError, match="statx: the kernel doesn't tell") as caught:
        syscalls.statx_mount(root)
    assert caught.value.errno == errno.ENOSYS


FAILING: dict[str, tuple[Callable[[], object], int]] = {
    "setns": (lambda: syscalls.setns(-1, syscalls.CLONE_NEWNS), errno.EBADF),
    "statx": (lambda: syscalls.statx_mount(-1), errno.EBADF),
    "move_mount": (lambda: syscalls.move_mount(-1, -1), errno.EBADF),
    "fspick": (lambda: syscalls.fspick(-1), errno.EBADF),
    "prctl": (lambda: syscalls.prctl(-1, 0), errno.EINVAL),
    "umount2": (lambda: syscalls.umount2(b"/proc/self", 0), errno.EINVAL),
    "fsconfig": (lambda: syscalls.fsconfig(-1, 6, None, None), errno.EINVAL),
}


@pytest.mark.parametrize(("name", "call"), list(FAILING.items()), ids=FAILING)
def test_an_error_has_the_calls_name(name: str, call: tuple[Callable[[], object], int]) -> None:
    with pytest.raises(OSError, match=f"{name}: ") as caught:
        call[0]()
    assert caught.value.errno == call[1]


def test_prctl() -> None:
    """In a child: what is dumpable is nobody's business in the parent."""
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
            # Of a process that isn't, everything in /proc is root's; of root's, the mode tells.
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status == 0


def test_setns_move_mount_fspick_and_umount2() -> None:
    with Scratch() as scratch:
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(_in_the_container(scratch))
            finally:
                os._exit(99)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        scratch.assert_untouched()


def _in_the_container(scratch: Scratch) -> int:
    """Mount a tmpfs there and take it off again; which check failed, 0 for none."""
    fd = os.open(f"/proc/{scratch.init.pid}/ns/mnt", os.O_RDONLY)
    syscalls.setns(fd, syscalls.CLONE_NEWNS)
    context = syscalls.fsopen(b"tmpfs")
    syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
    mount = syscalls.fsmount(context, 0)
    target = os.open(scratch.root / "opt", PATH)
    syscalls.move_mount(mount, target)
    here = os.stat(scratch.root / "opt")
    if not os.path.samestat(here, os.fstat(mount)):
        return 1
    picked = syscalls.fspick(mount)
    syscalls.fsconfig(picked, syscalls.FSCONFIG_CMD_RECONFIGURE, None, None)
    os.fchdir(mount)
    syscalls.umount2(b".", syscalls.MNT_DETACH)
    return 0 if os.path.samestat(os.stat(scratch.root / "opt"), os.fstat(target)) else 2


COMMON = {
    "fsopen": lambda: syscalls.fsopen(b"tmpfs"),
    "fsconfig": lambda: syscalls.fsconfig(-1, 0, None, None),
    "fsmount": lambda: syscalls.fsmount(-1, 0),
    "fspick": lambda: syscalls.fspick(-1),
    "move_mount": lambda: syscalls.move_mount(-1, -1),
    "openat2": lambda: syscalls.openat2(-1, b"/", 0, 0),
}


@pytest.mark.parametrize("call", COMMON.values(), ids=COMMON)
def test_a_machine_with_other_numbers(
    call: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syscalls, "MACHINE", "alpha")
    with pytest.raises(OSError, match="numbers aren't known") as caught:
        call()
    assert caught.value.errno == errno.ENOSYS


def test_what_it_gives_is_pythons_own(root: int) -> None:
    fd = syscalls.openat2(root, b"proc", PATH, 0)
    os.close(fd)
    assert type(fd) is int
    assert [type(item) for item in syscalls.statx_mount(root)] == [int, bool]


def test_bpf_has_the_numbers_of_recordings_table() -> None:
    for machine, number in syscalls._BPF.items():
        found = native(machine, 64)
        assert found is not None
        assert found.bpf == number


def test_bpf_on_a_machine_without_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "MACHINE", "m68k")
    with pytest.raises(
        OSError, match=r"the number of bpf\(2\) isn't known here for m68k"
    ) as caught:
        syscalls.bpf_obj_get(b"/sys/fs/bpf/nothing")
    assert caught.value.errno == errno.ENOSYS


@pytest.fixture
def array_map() -> Iterator[int]:
    """A map of one entry, 4 bytes for 4, as bpf(2) makes it."""
    fd = bpf.map_create(bpf.BPF_MAP_TYPE_ARRAY, None)
    yield fd
    os.close(fd)


def test_bpf_map(array_map: int) -> None:
    key, value = struct.pack("=I", 0), struct.pack("=I", 0xC0FFEE)
    syscalls.bpf_map(syscalls.BPF_MAP_UPDATE_ELEM, array_map, key, value)
    assert syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, array_map, key, 4) == value
    with pytest.raises(OSError, match="bpf") as caught:
        syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, array_map, struct.pack("=I", 1), 4)
    assert caught.value.errno == errno.ENOENT


def test_bpf_obj_info(array_map: int) -> None:
    kind, number, *sizes = struct.unpack_from("=6I", syscalls.bpf_obj_info(array_map))
    assert kind == bpf.BPF_MAP_TYPE_ARRAY
    assert number
    # Sizes of key and value, entries, flags.
    assert sizes == [4, 4, 1, 0]


def test_bpf_obj_get() -> None:
    with pytest.raises(OSError, match="bpf") as caught:
        syscalls.bpf_obj_get(b"/proc/self")
    # Something is there, and it is no bpffs's.
    assert caught.value.errno in (errno.EACCES, errno.EPERM, errno.EINVAL)
