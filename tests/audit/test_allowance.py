"""allowance.py: how much refusals may take, whoever counts them."""

import multiprocessing
from pathlib import Path

import pytest

from oci_bpf_hook.audit import allowance
from oci_bpf_hook.audit.allowance import MINUTE, OF_ROOT, OF_USER, More, due, spend
from oci_bpf_hook.paths import REFUSALS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [1_700_000_000.0]
    monkeypatch.setattr(allowance, "time", lambda: now[0])
    return now


def test_so_many_bytes_in_a_minute(tmp_path: Path, clock: list[float]) -> None:
    run = str(tmp_path / "new")
    told = [spend(61001, 4096, run=run) for _ in range(20)]
    assert told == [True] * (OF_USER // 4096) + [False] * (20 - OF_USER // 4096)
    # Another one's are another's.
    assert spend(61002, OF_USER, run=run)
    assert due(run=run) == []
    clock[0] += MINUTE
    assert due(run=run) == [More(user=61001, count=4)]
    assert due(run=run) == []
    assert spend(61001, OF_USER, run=run)
    assert not spend(61001, 1, run=run)
    # What isn't over yet is told of where there is no more time for it.
    assert due(run=run) == []
    assert due(every=True, run=run) == [More(user=61001, count=1)]


def test_what_nobody_was_told_of_isn_t_lost(tmp_path: Path, clock: list[float]) -> None:
    run = str(tmp_path)
    assert not spend(7, OF_USER + 1, run=run)
    clock[0] += MINUTE * 5
    assert not spend(7, OF_USER + 1, run=run)
    clock[0] += MINUTE
    assert due(run=run) == [More(user=7, count=2)]


def test_root_s_engines_start_the_containers_of_many(tmp_path: Path, clock: list[float]) -> None:
    assert spend(0, OF_ROOT, run=str(tmp_path))
    assert not spend(0, 1, run=str(tmp_path))


def test_a_clock_that_is_set_back(tmp_path: Path, clock: list[float]) -> None:
    run = str(tmp_path)
    assert not spend(7, OF_USER + 1, run=run)
    assert spend(7, OF_USER, run=run)
    clock[0] -= 10 * MINUTE
    assert spend(7, OF_USER, run=run)
    clock[0] += MINUTE
    assert due(run=run) == [More(user=7, count=1)]


def test_more_users_than_are_counted(tmp_path: Path, clock: list[float]) -> None:
    """The last ones have one allowance together; the file doesn't grow."""
    run = str(tmp_path)
    rooms = [spend(user, OF_USER // 2, run=run) for user in range(1000, 2000)]
    assert 100 < sum(rooms) < 200
    size = (tmp_path / REFUSALS).stat().st_size
    assert size <= 4096
    clock[0] += MINUTE
    (more,) = due(run=run)
    assert (more.user, more.count) == (None, 1000 - sum(rooms))
    # And those have their own again who come then.
    assert spend(1999, OF_USER, run=run)
    assert spend(1998, OF_USER, run=run)


@pytest.mark.parametrize("kind", ["link", "directory", "half", "odd"])
def test_a_file_that_is_no_good(tmp_path: Path, clock: list[float], kind: str) -> None:
    """Everything is on record then, or counted from now on."""
    path = tmp_path / REFUSALS
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"\xff" * (50 if kind == "half" else 9999))
    assert spend(7, 1, run=str(tmp_path)) or kind == "odd"
    due(every=True, run=str(tmp_path))
    assert not (tmp_path / "elsewhere").exists()


def _spend(run: str, rounds: int) -> None:
    for _ in range(rounds):
        spend(7, 64, run=run)


def test_many_at_once(tmp_path: Path, clock: list[float]) -> None:
    """What is counted is what there was, however many count."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_spend, args=(str(tmp_path), 200)) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    (more,) = due(every=True, run=str(tmp_path))
    assert more == More(user=7, count=1600 - OF_USER // 64)
