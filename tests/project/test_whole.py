"""Files that root's tools write where somebody else has been before: ours, and no other harmed."""

import json
import os
import posix
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook import whole
from oci_bpf_hook.broker import listening
from oci_bpf_hook.errors import DONE, USAGE
from tests.support.command import Done, command
from tests.support.places import ROOT
from tests.support.policy import in_force
from tests.support.writers import Write, seccomp, writers

OTHER = 61_001
SECRET = "of root's alone"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A sticky directory that everybody can write to, of somebody else's: there links are followed.

    The kernel follows a link in such a directory for whoever owns neither, if who owns the one owns
    the other (proc(5), protected_symlinks).
    """
    directory = tmp_path / "theirs"
    directory.mkdir()
    directory.chmod(0o1777)
    os.chown(directory, OTHER, OTHER)
    return directory


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


def assert_unharmed(victim: Path) -> None:
    status = victim.lstat()
    assert victim.read_text() == SECRET
    assert (status.st_mode, status.st_uid, status.st_gid) == (0o100600, 0, 0)


def identity(path: Path) -> tuple[int, ...]:
    """What a write to what lies at `path` would change."""
    status = path.lstat()
    return (status.st_ino, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)


def plant_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)
    os.lchown(path, OTHER, OTHER)


def plant_nothing(path: Path, victim: Path) -> None:
    plant_link(path, victim.with_name("new"))


def plant_fifo(path: Path, victim: Path) -> None:
    os.mkfifo(path, 0o666)
    os.chown(path, OTHER, OTHER)


def plant_file(path: Path, victim: Path) -> None:
    path.write_text("theirs")
    path.chmod(0o666)
    os.chown(path, OTHER, OTHER)


def plant_hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


PLANTS = {
    "a link": plant_link,
    "a link to nothing": plant_nothing,
    "a fifo": plant_fifo,
    "a file": plant_file,
    "a hard link": plant_hard_link,
}
planted = pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
Plant = Callable[[Path, Path], None]


def within(write: Write, path: Path) -> Done:
    """What comes of `write`, which isn't to wait for anybody."""
    done: list[Done] = []
    thread = threading.Thread(target=lambda: done.append(write(path)), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits for whoever has made the FIFO"
    return done[0]


@writers
@planted
def test_what_lies_at_the_target(theirs: Path, victim: Path, write: Write, plant: Plant) -> None:
    path = theirs / "file"
    plant(path, victim)
    done = write(path)
    assert done.returncode == DONE, done.stderr
    assert_unharmed(victim)
    assert not victim.with_name("new").exists()
    status = path.lstat()
    assert stat.S_ISREG(status.st_mode)
    assert (status.st_uid, status.st_nlink, status.st_mode & 0o022) == (0, 1, 0)
    assert path.read_bytes()
    assert list(theirs.iterdir()) == [path]


@writers
@planted
@pytest.mark.parametrize("name", [".file.new", "file.new", "file~"])
def test_what_lies_at_a_temporary_name(
    theirs: Path, victim: Path, write: Write, plant: Plant, name: str
) -> None:
    plant(theirs / name, victim)
    before = identity(theirs / name)
    done = write(theirs / "file")
    assert done.returncode == DONE, done.stderr
    assert_unharmed(victim)
    assert (theirs / "file").lstat().st_uid == 0
    assert identity(theirs / name) == before


@writers
def test_a_directory_at_the_target(theirs: Path, write: Write) -> None:
    path = theirs / "file"
    path.mkdir()
    done = write(path)
    assert done.returncode == USAGE
    assert "Is a directory" in done.stderr
    assert list(theirs.rglob("*")) == [path]


@pytest.mark.parametrize("content", ["as it is to be", "another"])
def test_a_file_of_another_s_isn_t_taken_for_written(theirs: Path, content: str) -> None:
    """It is as it should be, and whoever owns it can change that at any time."""
    path = theirs / "profile.json"
    assert seccomp(path).returncode == DONE
    if content == "another":
        path.write_bytes(path.read_bytes()[:-1] + b" ")
    os.chown(path, OTHER, OTHER)
    done = seccomp(path)
    assert done.stdout == f"write {path} (0644)\n"
    assert path.stat().st_uid == 0
    assert seccomp(path).stdout == ""


def test_inject_keeps_whose_it_is(theirs: Path, victim: Path) -> None:
    """A bundle of a user's, in which root adds the hook."""
    path = theirs / "config.json"
    path.write_text(json.dumps({"linux": {"namespaces": [{"type": "user"}]}, "process": {}}))
    path.chmod(0o640)
    os.chown(path, OTHER, OTHER)
    for name in (".config.json.new", "config.json.new"):
        plant_link(theirs / name, victim)
    hook = ("--hook", str(ROOT / "hooks.d" / "oci-bpf-hook"))
    with in_force(None):
        done = command("inject", theirs, "--annotation", "io.bpffs.delegate_cmds=map_create", *hook)
    assert done.returncode == DONE, done.stderr
    assert_unharmed(victim)
    status = path.lstat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (0o100640, OTHER, OTHER)
    assert "oci-bpf-hook" in path.read_text()


def test_inject_waits_for_nobody(theirs: Path) -> None:
    plant_fifo(theirs / "config.json", theirs)
    done = within(lambda path: command("inject", path, "--undo"), theirs)
    assert (done.returncode, "isn't a regular file" in done.stderr) == (USAGE, True)


def test_cdi_devices_are_written_nowhere_that_others_can(theirs: Path) -> None:
    with in_force(None):
        done = command("cdi", "generate", "--output", theirs)
    assert (done.returncode, list(theirs.iterdir())) == (USAGE, [])


def test_a_socket_that_is_swapped(
    theirs: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the broker's has a name something else lies there: its mode and group stay."""

    class Swapped(socket.socket):
        def bind(self, address: Any, /) -> None:
            super().bind(address)
            Path(address).rename(theirs / "aside")
            plant_link(Path(address), victim)

    monkeypatch.setattr(socket, "socket", Swapped)
    with listening.listen(str(theirs / "broker.sock"), 0o666, OTHER):
        assert_unharmed(victim)
        assert (theirs / "aside").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("planted_as", [*PLANTS, "directory"])
def test_a_name_that_was_guessed(
    theirs: Path, victim: Path, monkeypatch: pytest.MonkeyPatch, planted_as: str
) -> None:
    """Nobody guesses 64 bits; and if they do, what is there is no file of ours."""
    taken = theirs / f".oci-bpf-hook.{bytes(8).hex()}"
    if planted_as == "directory":
        taken.mkdir()
    else:
        PLANTS[planted_as](taken, victim)
    before = identity(taken)
    guesses = [bytes(8), bytes(8), b"\1" * 8]
    monkeypatch.setattr(posix, "urandom", lambda size: guesses.pop(0))
    whole.write(theirs / "file", b"content", mode=0o600)
    assert guesses == []
    assert (theirs / "file").read_bytes() == b"content"
    assert identity(taken) == before
    monkeypatch.setattr(posix, "urandom", bytes)
    with pytest.raises(FileExistsError) as caught:
        whole.write(theirs / "other", b"content", mode=0o600)
    assert caught.value.filename == str(theirs / "other")
    assert_unharmed(victim)
    assert not (theirs / "other").exists()
