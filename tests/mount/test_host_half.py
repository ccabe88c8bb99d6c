"""The mount itself: who owns it, what it shows, and what a second run does to it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scratch import FIRST_ID, Scratch, assert_failed, bpf_mounts, run_hook
from tests.support.tracer import inject

ASK = {"io.bpffs.delegate_cmds": "map_create:prog_load"}
TARGET = "sys/fs/bpf"
NEW = {**ASK, "io.bpffs.path": "/opt/new/deep"}


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


def granted(container: Scratch, annotations: dict[str, str]) -> None:
    result = container.hook(annotations)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def inside(container: Scratch, *command: str) -> str:
    result = container.enter(*command)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def shown(mount: str) -> set[str]:
    """The options of a line of mountinfo that aren't about its owner."""
    options = mount.rpartition(" ")[2].split(",")
    return {option for option in options if option.startswith("delegate_")}


# ---- one run ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["0755", "0700", "1777", "2770", "0555", "01777", "0"])
def test_owner_and_mode(container: Scratch, mode: str) -> None:
    granted(container, {**ASK, "io.bpffs.mode": mode})
    status = inside(container, "stat", "-c", "%u:%g %a", str(container.root / TARGET))
    assert status == f"0:0 {int(mode, 8):o}"


def test_the_default_mode_is_the_kernels(container: Scratch) -> None:
    granted(container, ASK)
    assert inside(container, "stat", "-c", "%a", str(container.root / TARGET)) == "1777"


def test_it_is_the_containers_to_change(container: Scratch) -> None:
    granted(container, ASK)
    target = str(container.root / TARGET)
    inside(container, "chmod", "0711", target)
    inside(container, "chown", "5:6", target)
    inside(container, "mkdir", f"{target}/pins")
    assert inside(container, "stat", "-c", "%u:%g %a", target) == "5:6 711"


def test_flags(container: Scratch) -> None:
    granted(container, ASK)
    (mount,) = container.mounts()
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mount.split(" ")[5].split(","))


def test_what_is_delegated(container: Scratch) -> None:
    lists = {
        "cmds": "btf_load,map_create",
        "maps": "array:hash",
        "progs": "xdp cgroup_skb",
        "attachs": "BPF_XDP",
    }
    granted(container, {f"io.bpffs.delegate_{name}": text for name, text in lists.items()})
    (mount,) = container.mounts()
    assert shown(mount) == {
        "delegate_cmds=map_create:btf_load",
        "delegate_maps=hash:array",
        "delegate_progs=xdp:cgroup_skb",
        "delegate_attachs=xdp",
    }


def test_directories_are_made(container: Scratch) -> None:
    granted(container, NEW)
    for name in ("opt/new", "opt/new/deep"):
        status = (container.root / name).stat()
        assert (status.st_uid, status.st_gid) == (FIRST_ID, FIRST_ID)
        assert status.st_mode & 0o7777 == 0o755
    assert len(container.mounts()) == 1


def test_directories_go_when_no_mount_followed(container: Scratch) -> None:
    result = run_hook(container.state(NEW), prefix=inject("move_mount:error=EPERM"))
    assert_failed(result, 16, container=container)


def test_a_directory_that_was_there_stays_as_it_was(container: Scratch) -> None:
    (container.root / "opt").chmod(0o711)
    granted(container, NEW)
    assert (container.root / "opt").stat().st_mode & 0o7777 == 0o711


@pytest.mark.parametrize("identity", range(0x20, 0x30))
def test_whatever_the_targets_mount_is_called(identity: int) -> None:
    """Its number is the first thing that comes from inside."""
    setup = f"""
while True:
    mount("none", root + "/opt", "tmpfs", 0)
    with open("/proc/self/mountinfo") as file:
        top = [line for line in file if line.split()[4] == root + "/opt"][-1]
    if int(top.split()[0]) % 256 == {identity}:
        break
"""
    with Scratch(setup=setup) as container:
        granted(container, {**ASK, "io.bpffs.path": "/opt"})
        assert len(container.mounts()) == 1


# ---- another run -----------------------------------------------------------------------

THE_SAME: dict[str, dict[str, str]] = {
    "as before": {},
    "in another order": {"delegate_cmds": "prog_load,MAP_CREATE"},
    "by other names": {"delegate_cmds": "BPF_PROG_LOAD BPFMapCreate"},
    "as a mask": {"delegate_cmds": "0x21"},
    "its defaults written": {"path": "//sys/fs/bpf/", "mode": "01777"},
}


@pytest.mark.parametrize("change", THE_SAME.values(), ids=THE_SAME)
def test_the_same_again(container: Scratch, change: dict[str, str]) -> None:
    granted(container, ASK)
    before = container.mounts()
    granted(container, ASK | {f"io.bpffs.{key}": text for key, text in change.items()})
    assert container.mounts() == before
    assert len(before) == 1


@pytest.mark.parametrize("mode", ["0700", "2770"])
def test_the_same_again_with_a_mode(container: Scratch, mode: str) -> None:
    granted(container, {**ASK, "io.bpffs.mode": mode})
    granted(container, {**ASK, "io.bpffs.mode": mode})
    assert len(container.mounts()) == 1


def test_the_same_again_in_a_directory_that_was_made(container: Scratch) -> None:
    granted(container, NEW)
    granted(container, NEW)
    assert len(container.mounts()) == 1


OTHERS: dict[str, dict[str, str]] = {
    "more": {"delegate_cmds": "map_create:prog_load:btf_load"},
    "less": {"delegate_cmds": "map_create"},
    "another list": {"delegate_maps": "hash"},
    "another mode": {"mode": "0700"},
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_another_request(container: Scratch, change: dict[str, str]) -> None:
    granted(container, ASK)
    asked = ASK | {f"io.bpffs.{key}": text for key, text in change.items()}
    granted(container, asked)
    below, top = container.mounts()
    # The new one's parent is the old one: it lies over it.
    assert top.split(" ")[1] == below.split(" ")[0]
    lists = {key.removeprefix("io.bpffs."): text for key, text in asked.items()}
    assert shown(top) == {f"{k}={v}" for k, v in lists.items() if k.startswith("delegate_")}
    granted(container, asked)
    assert container.mounts() == [below, top]


CHANGED = ("chmod 0711", "chown 5:5", "chown 0:5", "mount -o remount,bind,ro")


@pytest.mark.parametrize("change", CHANGED)
def test_ours_but_changed_since(container: Scratch, change: str) -> None:
    granted(container, ASK)
    inside(container, *change.split(), str(container.root / TARGET))
    granted(container, ASK)
    assert len(container.mounts()) == 2


def test_what_shows_as_asked_for_and_is_no_bpffs() -> None:
    """Of a bit that has no name nothing is shown, as of any file system."""
    setup = f'mount("none", root + "/{TARGET}", "tmpfs", 14, "mode=1777")'
    with Scratch(setup=setup) as container:
        result = container.hook({"io.bpffs.delegate_cmds": "0x8000000000000000"})
        assert (result.returncode, result.stderr) == (0, "")
        (mount,) = container.mounts()
        assert " - bpf " in mount


# ---- somebody else's -------------------------------------------------------------------

OPTIONS = f"nosuid,nodev,noexec,uid={FIRST_ID},gid={FIRST_ID}"
FOREIGN = {
    "no delegation": OPTIONS,
    "other masks": f"{OPTIONS},delegate_cmds=map_create",
    "just what is asked for": f"{OPTIONS},delegate_cmds=map_create:prog_load",
}


@pytest.mark.parametrize("options", FOREIGN.values(), ids=FOREIGN)
def test_a_bpffs_of_the_hosts(options: str) -> None:
    """It makes no tokens in the container: its superblock belongs to the host."""
    script = f'mount -t bpf -o {options} none "$5/{TARGET}" && exec "$@"'
    with Scratch(prefix=("unshare", "-m", "sh", "-c", script, "sh")) as container:
        before = len(container.mounts())
        granted(container, ASK)
        mounts = container.mounts()
        assert len(mounts) == before + 1
        assert shown(mounts[-1]) == {"delegate_cmds=map_create:prog_load"}
        granted(container, ASK)
        assert container.mounts() == mounts


def test_a_bpffs_of_the_user_namespace_above(container: Scratch) -> None:
    """A container in a container finds its parent's at the target, just as asked for."""
    granted(container, ASK)
    with container.running("unshare", "-U", "-r", "-m") as nested:
        for _ in range(2):
            result = container.hook(ASK, pid=nested.pid)
            assert (result.returncode, result.stderr) == (0, "")
            above, own = (line for line in bpf_mounts(nested.pid) if str(container.root) in line)
            assert shown(above) == shown(own)
    assert len(container.mounts()) == 1


def test_a_directory_in_a_bpffs(container: Scratch) -> None:
    granted(container, ASK)
    granted(container, {**ASK, "io.bpffs.path": "/sys/fs/bpf/below"})
    assert len(container.mounts()) == 2


def test_a_bpffs_bound_to_the_target(container: Scratch) -> None:
    """Of which the target shows a directory only, and a token takes the root."""
    granted(container, ASK)
    bpffs, elsewhere = (str(container.root / name) for name in (TARGET, "opt"))
    inside(container, "mkdir", f"{bpffs}/below")
    inside(container, "mount", "--bind", f"{bpffs}/below", elsewhere)
    granted(container, {**ASK, "io.bpffs.path": "/opt"})
    assert len(container.mounts()) == 3


# ---- propagation -----------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False], ids=["private", "as the kernel has it"])
def test_nothing_appears_on_the_host(private: bool) -> None:
    """Even where the root filesystem is on a mount that shares what is mounted below it."""
    share = "mount --make-rshared / && mount --bind /tmp /tmp && echo ready && exec cat"
    command = ("unshare", "-m", "--propagation", "private", "sh", "-c", share)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as host:
        assert host.stdin
        assert host.stdout
        assert host.stdout.readline() == b"ready\n"
        before = bpf_mounts(host.pid)
        enter = ("nsenter", "-t", str(host.pid), "-m", "--")
        with Scratch(prefix=enter, private=private) as container:
            result = run_hook(container.state(ASK), prefix=enter)
            assert result.returncode == 0, result.stderr
            assert len(container.mounts()) == 1
            assert bpf_mounts(host.pid) == before
        host.stdin.close()


# A mount of the host's as crun hands it to a container: by an fd, and so a peer of the host's.
OPEN_TREE = """
import ctypes, os, sys
fd = ctypes.CDLL(None).syscall(428, -100, os.fsencode(sys.argv[1]), 1)  # open_tree, to clone
os.dup2(fd, 9)
os.execv(sys.argv[2], sys.argv[2:])
"""
MOVE_MOUNT = 'check(libc.syscall(429, 9, b"", -100, os.fsencode(root + "/opt"), 4))'
THROUGH = {"itself": "/opt", "a directory in it": "/opt/new/deep"}


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a mount, and shares what is mounted in it."""
    tmp_path.chmod(0o777)
    for arguments in (("--bind", tmp_path), ("--make-shared",)):
        subprocess.run(["mount", *arguments, tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "--recursive", tmp_path], check=True)


@pytest.mark.parametrize("path", THROUGH.values(), ids=THROUGH)
def test_a_volume_that_the_host_shares(shared: Path, path: str) -> None:
    """The bpffs would lie on the host's directory as well, and stay there."""
    prefix = ("/usr/bin/python3", "-ISc", OPEN_TREE, str(shared))
    with Scratch(prefix=prefix, setup=MOVE_MOUNT) as container:
        result = container.hook({**ASK, "io.bpffs.path": path})
        assert_failed(result, 16, "shared with the host", "io.bpffs.path", container=container)
        assert list(shared.iterdir()) == []
        # Elsewhere in that container there is nothing against it.
        granted(container, ASK)
        assert len(container.mounts()) == 1


def test_a_volume_that_follows_the_hosts(shared: Path) -> None:
    """As rslave: what the host mounts comes, and nothing goes back."""
    prefix = ("/usr/bin/python3", "-ISc", OPEN_TREE, str(shared))
    slave = f"{MOVE_MOUNT}; mount('none', root + '/opt', None, 1 << 19); "
    again = "mount('none', root + '/opt', None, 1 << 20)"  # And shared with others inside.
    before = bpf_mounts()
    for setup in (slave, slave + again):
        with Scratch(prefix=prefix, setup=setup) as container:
            granted(container, {**ASK, "io.bpffs.path": "/opt"})
            assert len(container.mounts()) == 1
            assert bpf_mounts() == before
