"""engines.py: which file root may run, on real directories, links and modes."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.running import programs
from oci_bpf_hook.running.programs import find, is_place_of, is_program, roots_alone, trusted
from tests.support.engines import make_work_directory, remove_work_directory

USER = 61996


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which root alone can change anything, with bin/crun."""
    before = os.listdir("/proc/self/fd")
    directory = make_work_directory()
    (directory / "bin").mkdir(mode=0o755)
    (directory / "bin" / "crun").write_text("#!/bin/sh\n")
    (directory / "bin" / "crun").chmod(0o755)
    yield directory
    remove_work_directory(directory)
    assert os.listdir("/proc/self/fd") == before


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def test_what_root_alone_can_change(place: Path) -> None:
    assert trusted(f"{place}/bin/crun") == identity(place / "bin" / "crun")
    # /tmp is everybody's, but what is root's in it nobody else can move.
    assert place.parent == Path("/tmp")
    status = roots_alone(str(place))
    assert status is not None
    assert status.st_ino == place.stat().st_ino


def moved(place: Path) -> None:
    """Into a directory in which anybody can move anything."""
    (place / "bin").rename(place / "old")
    (place / "bin").mkdir()
    (place / "bin").chmod(0o777)
    shutil.copy(place / "old" / "crun", place / "bin" / "crun")


def linked(place: Path, *, owner: int = 0, target: str = "crun.real") -> None:
    (place / "bin" / "crun").rename(place / "bin" / "crun.real")
    (place / "bin" / "crun").symlink_to(target)
    os.chown(place / "bin" / "crun", owner, owner, follow_symlinks=False)


def replaced(place: Path, make: Callable[[Path], None]) -> None:
    (place / "bin" / "crun").unlink()
    make(place / "bin" / "crun")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(moved, id="a-directory-of-everybody's"),
        pytest.param(lambda place: (place / "bin").chmod(0o775), id="a-directory-of-a-group's"),
        pytest.param(lambda place: os.chown(place / "bin", USER, 0), id="a-directory-of-a-user's"),
        pytest.param(lambda place: os.chown(place, USER, 0), id="one-above"),
        pytest.param(lambda place: os.chown(place / "bin" / "crun", USER, 0), id="a-user's"),
        pytest.param(lambda place: (place / "bin" / "crun").chmod(0o757), id="writable"),
        pytest.param(lambda place: (place / "bin" / "crun").chmod(0o644), id="no-program"),
        pytest.param(lambda place: linked(place, owner=USER), id="a-link-of-a-user's"),
        pytest.param(lambda place: linked(place, target="crun"), id="a-link-to-itself"),
        pytest.param(lambda place: linked(place, target="missing"), id="a-link-to-nothing"),
        pytest.param(lambda place: linked(place, target="crun.real/x"), id="a-link-below-a-file"),
        pytest.param(lambda place: replaced(place, Path.mkdir), id="a-directory"),
        pytest.param(lambda place: replaced(place, os.mkfifo), id="a-fifo"),
        pytest.param(lambda place: (place / "bin" / "crun").unlink(), id="nothing"),
    ],
)
def test_what_others_can_change(place: Path, change: Callable[[Path], None]) -> None:
    change(place)
    assert trusted(f"{place}/bin/crun") is None


@pytest.mark.parametrize("target", ["crun.real", "../bin/./crun.real", "PLACE/bin/crun.real"])
def test_a_link_of_root_s(place: Path, target: str) -> None:
    linked(place, target=target.replace("PLACE", str(place)))
    assert trusted(f"{place}/bin/crun") == identity(place / "bin" / "crun.real")


def test_a_link_to_where_others_write(place: Path) -> None:
    (place / "everybody").mkdir()
    shutil.move(place / "bin" / "crun", place / "everybody" / "crun")
    (place / "everybody").chmod(0o777)
    (place / "bin" / "crun").symlink_to("../everybody/crun")
    assert trusted(f"{place}/bin/crun") is None


def test_what_is_installed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("crun") == shutil.which("crun")
    assert find("no-such-program") is None
    assert is_place_of("/usr/bin/crun", "crun")
    monkeypatch.setenv("PATH", f"{place}/bin")
    assert find("crun") == "/usr/bin/crun"
    for path in (f"{place}/bin/crun", "/usr/bin/../bin/crun", "crun", "/usr/bin/crun\0", ""):
        assert not is_place_of(path, "crun")
    # A name is one, and leads nowhere else.
    for name in ("", ".", "..", "../bin/crun", "/usr/bin/crun", "crun\0"):
        assert find(name) is None


def test_a_process_s_program(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = place / "bin" / "crun"
    monkeypatch.setattr(programs, "PLACES", (f"{place}/bin",))
    fd = os.open(program, os.O_PATH)
    try:
        link = f"/proc/self/fd/{fd}"
        assert is_program(os.stat(fd), os.readlink(link), "crun")
        assert not is_program(os.stat(fd), os.readlink(link), "runc")
        assert not is_program(os.stat("/usr/bin/crun"), "/usr/bin/crun", "crun")
        # A newer package, while the old one's program still runs.
        newer = place / "bin" / "crun.new"
        shutil.copy(program, newer)
        newer.rename(program)
        assert os.readlink(link) == f"{program} (deleted)"
        assert is_program(os.stat(fd), os.readlink(link), "crun")
        assert not is_program(os.stat(fd), "/usr/bin/crun (deleted)", "crun")
        os.chown(program, USER, 0)
        assert not is_program(os.stat(fd), os.readlink(link), "crun")
    finally:
        os.close(fd)
