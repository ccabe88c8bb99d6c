"""arrivals.py and subids.py: whose connections are whose, and in which turn they are looked at."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.broker import arrivals
from oci_bpf_hook.broker.arrivals import Arrivals, Arrived, Credit
from oci_bpf_hook.broker.subids import Ranges

SUBUID = """\
alice:100000:65536
# no range, and others that are none
bob:165536:65536
bob:x:65536
alice:500000:10
1003:300000:65536
nobody:
:700000:0
wide:900000:1000
inner:900100:100
huge:1{zeros}:1
"""


def ranges(path: Path, text: str = SUBUID.format(zeros="0" * 5000)) -> Ranges:
    path.write_text(text)
    found = Ranges(str(path))
    found.refresh()
    return found


def test_whose_subordinate_ids(tmp_path: Path) -> None:
    found = ranges(tmp_path / "subuid")
    owners = {99_999: None, 100_000: "alice", 165_535: "alice", 165_536: "bob", 231_072: None}
    owners |= {500_009: "alice", 500_010: None, 300_000: "1003", 700_000: None}
    # A range within another one, and what is behind its end.
    owners |= {900_050: "wide", 900_150: "inner", 900_250: "wide", 901_000: None}
    assert {uid: found.owner(uid) for uid in owners} == owners


def test_one_owner_s_are_one_group(tmp_path: Path) -> None:
    found = ranges(tmp_path / "subuid")
    assert {found.group(uid) for uid in (100_000, 123_456, 165_535, 500_003)} == {100_000}
    assert found.group(165_536) == 165_536
    # Accounts have one each, whoever they are.
    assert [found.group(uid) for uid in (0, 1000, 1001, 65_535)] == [0, 1000, 1001, 65_535]
    # What is in no range may be a container's.
    assert found.group(10 * 65_536) == found.group(11 * 65_536 - 1) == 10 * 65_536
    assert found.group(11 * 65_536) == 11 * 65_536


def test_it_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    found = ranges(path)
    path.write_text("carol:100000:65536\n")
    found.refresh()
    assert found.owner(100_000) == "carol"
    path.unlink()
    found.refresh()
    assert found.owner(100_000) is None


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60))))
def test_any_ranges(several: list[tuple[int, int]]) -> None:
    """Whatever lies over whatever: an id has an owner just where there is a range with it."""
    found = Ranges("/dev/null")
    lines = [f"u{n}:{first}:{count}" for n, (first, count) in enumerate(several)]
    found._take(lines)
    for uid in range(400):
        those = {
            f"u{n}" for n, (first, count) in enumerate(several) if first <= uid < first + count
        }
        owner = found.owner(uid)
        assert owner in those if those else owner is None


@contextmanager
def sockets(count: int) -> Iterator[list[socket.socket]]:
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        yield [pair[0] for pair in pairs]
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def test_in_turn() -> None:
    """A group after the other, and in a group a uid after the other; of one the oldest first."""
    uids = [(1, 1), (1, 1), (1, 1), (7, 70), (8, 70), (7, 70), (2, 2)]
    waiting = Arrivals(0)
    with sockets(len(uids)) as socks:
        for sock, (uid, group) in zip(socks, uids, strict=True):
            waiting.add(Arrived(sock, uid, group))
        assert (len(waiting), waiting.groups(), waiting.most()) == (7, 3, (3, 1))
        # The one that is taken out of turn has had its turn.
        assert waiting.take(70).sock is socks[3]
        order = [waiting.take() for _ in range(len(waiting))]
    assert [(one.uid, one.group) for one in order] == [
        *((1, 1), (2, 2), (8, 70), (1, 1), (7, 70), (1, 1))
    ]
    assert order[0].sock is socks[0]
    assert (waiting.groups(), waiting.most()) == (0, (0, None))


def test_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(arrivals, "monotonic", lambda: now[0])
    credit = Credit(2, 3)
    assert [credit.take() for _ in range(4)] == [True, True, True, False]
    now[0] += 0.5
    assert [credit.take() for _ in range(2)] == [True, False]
    now[0] += 1.4
    assert not credit.whole()
    now[0] += 60
    assert credit.whole()
    assert [credit.take() for _ in range(4)] == [True, True, True, False]


def test_who_comes_too_fast_is_dropped_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(arrivals, "monotonic", lambda: now[0])
    waiting = Arrivals(1)
    with sockets(1) as (sock,):
        taken = [waiting.whose(sock) is not None for _ in range(200)]
        assert taken == [True] * 128 + [False] * 72
        assert waiting.dropped() == {0: 72}
        assert waiting.dropped() == {}
        waiting.refresh()
        assert waiting.whose(sock) is None
        now[0] += 3600
        waiting.refresh()
        assert all(waiting.whose(sock) for _ in range(128))
