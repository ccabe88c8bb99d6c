"""Files that commands write for who calls them: links, pipes and modes stay, no half files."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook import whole
from oci_bpf_hook.errors import DONE, USAGE
from tests.support.command import command
from tests.support.places import ROOT
from tests.support.writers import html, seccomp


def test_a_pipe_of_ours_is_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True) as reader:
        assert seccomp(fifo).returncode == DONE
        assert reader.stdout
        assert "syscalls" in json.loads(reader.stdout.read())
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


@pytest.mark.parametrize("target", ["a pipe", "a file"])
def test_dev_stdout_stays_what_it_is(tmp_path: Path, target: str) -> None:
    """It is a link, and root could replace it."""
    before = os.lstat("/dev/stdout")
    argv = [sys.executable, "-m", "oci_bpf_hook", "record", "--output", "/dev/stdout", "--json"]
    with (tmp_path / "out").open("w+") as file:
        subprocess.run(
            [*argv, "--", "true"],
            stdout=file if target == "a file" else subprocess.PIPE,
            check=True,
            cwd=ROOT,
        )
        if target == "a file":
            assert json.loads((tmp_path / "out").read_text())
    assert os.lstat("/dev/stdout") == before
    assert command("record", "--output", "/dev/null", "--", "true").returncode == DONE
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_our_own_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    assert html(tmp_path / "link").returncode == DONE
    assert (tmp_path / "link").is_symlink()
    assert "<html" in (tmp_path / "real").read_text()


def test_a_file_of_ours_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("of last week")
    path.chmod(0o640)
    assert html(path).returncode == DONE
    assert path.lstat().st_mode == 0o100640


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027])
def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        whole.write(tmp_path / "new", b"x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "new").lstat().st_mode == 0o100666 & ~mask


def test_an_error_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half() -> None:
        with whole.Replacement(path) as fd:
            os.write(fd, b"half of")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_record_leaves_the_old_one_where_it_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "needs"
    path.write_text("of last week")
    argv = [sys.executable, "-m", "oci_bpf_hook", "record", "--output", str(path), "--"]
    script = "echo runs; exec cat"
    with subprocess.Popen(
        [*argv, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"runs\n"
        # Neither is it there before its time, nor is the old one gone.
        assert path.read_text() == "of last week"
        process.kill()
    assert path.read_text() == "of last week"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for next to nothing."""
    directory = tmp_path / "full"
    directory.mkdir()
    size = "size=16k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_no_room(full: Path) -> None:
    path = full / "profile.json"
    path.write_text("old")
    path.chmod(0o644)
    done = seccomp(path)
    assert done.returncode == USAGE
    assert "No space left on device" in done.stderr
    assert (path.read_text(), list(full.iterdir())) == ("old", [path])


@pytest.mark.parametrize("name", ["", ".", "..", "a/", "missing/file", "file/below"])
def test_paths_that_are_no_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    path = f"{tmp_path}/{name}"
    with pytest.raises(OSError, match="directory") as caught:
        whole.write(path, b"")
    assert caught.value.filename == path
    with pytest.raises(OSError, match="directory"):
        whole.Replacement(path).check()
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_no_fd_is_left(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    whole.write(tmp_path / "a", b"x")
    whole.Replacement(tmp_path / "a", devices=True).check()
    for name in ("a/b", "", "none/x"):
        with pytest.raises(OSError, match="directory"):
            whole.write(f"{tmp_path}/{name}", b"x")
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert whole.is_written(tmp_path / "a", b"x", 0o100644 & 0o777)
    assert not whole.is_written(tmp_path / "b", b"x", 0o644)
    assert len(os.listdir("/proc/self/fd")) == len(before)
