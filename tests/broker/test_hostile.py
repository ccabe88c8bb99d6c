"""What users do to a broker together, and the kernel when it has nothing left: it goes on."""

import base64
import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.audit.allowance import OF_USER
from oci_bpf_hook.broker.wire import LONGEST
from oci_bpf_hook.errors import BAD_ANNOTATION
from tests.support.broker import ALONE, Broker, Peer, request
from tests.support.crowd import Crowd, Fillers, Stepped
from tests.support.peers import ASK, by
from tests.support.policy import AUDIT, audited
from tests.support.scratch import io
from tests.support.syslog import DevLog
from tests.support.users import ALICE, BOB

pytestmark = pytest.mark.usefixtures("everybody")

# More turns than any connection takes: four until all are taken that the kernel keeps, two to be
# looked at and heard.
TURNS = 8


def granted(peer: Peer) -> None:
    """It is served as if there was nobody else."""
    assert "granted" in peer.ask(ASK)
    assert peer.mount()[1] == ["/"]


@contextmanager
def stopped(broker: Broker) -> Iterator[None]:
    """What happens meanwhile it sees at once, as one batch of events."""
    broker.process.send_signal(signal.SIGSTOP)
    try:
        # It has stopped once that can be seen.
        os.waitid(os.P_PID, broker.process.pid, os.WSTOPPED | os.WNOWAIT)
        yield
    finally:
        broker.process.send_signal(signal.SIGCONT)


def failing(rule: str) -> list[str]:
    """A command to run the broker behind, whose own calls fail as strace's `rule` says."""
    return ["strace", "-D", "-qq", "-o", "/dev/null", "-e", f"inject={rule}", "--"]


# ---- one event's failure --------------------------------------------------------------------


def test_a_connection_that_is_dropped_before_its_own_event() -> None:
    """Others come while there is no room, and those that go for them speak at the same moment."""
    with Broker(prefix=["prlimit", "--nofile=48:48", "--"]) as broker, by(ALICE) as peer:
        before = broker.fds()
        peer.do("connect", count=24)
        with by(BOB) as bob:
            for _ in range(3):
                broker.heard()
                with stopped(broker):
                    bob.do("connect", count=12)
                    for number in range(24):
                        peer.send(request(ASK), number=number)
                broker.heard()
                peer.do("connect", count=24)
            granted(bob)
        peer.process.kill()
        broker.quiet(before)


def test_no_process_for_a_request() -> None:
    """The kernel has none left, for a while."""
    with Broker(prefix=failing("clone:error=EAGAIN:when=1..3")), by(ALICE) as peer:
        for _ in range(3):
            answer = peer.ask(ASK)
            assert answer["problems"] == [
                "the broker can't fork: Resource temporarily unavailable"
            ], answer
        granted(peer)


@pytest.mark.parametrize("error", ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EPROTO"])
def test_a_connection_that_can_t_be_taken(error: str) -> None:
    """The first ones can't; the broker comes back to them, and isn't busy with them meanwhile."""
    with Broker(prefix=failing(f"accept4:error={error}:when=1..5")), by(ALICE) as peer:
        granted(peer)
        granted(peer)


@pytest.mark.parametrize("call", ["getsockopt", "epoll_ctl"])
def test_whatever_fails_is_one_event_s_matter(call: str) -> None:
    """Now and then the kernel refuses a call that never fails; the broker goes on, and serves."""
    rule = f"{call}:error=EIO:when=10+5"
    with Broker(prefix=failing(rule)) as broker, by(ALICE) as peer:
        served = 0
        for _ in range(8):
            peer.do("connect")
            peer.send(request(ASK))
            answer = peer.do("recv")
            served += b"granted" in base64.b64decode(answer.get("data", ""))
        assert broker.process.poll() is None
        assert served


def test_no_file_descriptor_is_left() -> None:
    with (
        Broker(prefix=["prlimit", "--nofile=14:14", "--"]) as broker,
        by(ALICE) as peer,
        by(BOB) as bob,
    ):
        peer.do("connect", count=40)
        bob.do("connect")
        # Whatever each of them is told, it goes on.
        peer.process.kill()
        broker.heard()
        assert broker.process.poll() is None


@pytest.mark.parametrize("how", ["--ignore-signal=CHLD", "--block-signal=CHLD"])
def test_whoever_starts_it_has_no_use_for_its_children(how: str) -> None:
    with Broker(prefix=["env", how]) as broker, by(ALICE) as peer:
        before = broker.fds()
        for _ in range(20):
            granted(peer)
        broker.quiet(before)


def test_signals_while_it_is_busy() -> None:
    """Hundreds that it sees at once, and the one that ends it among them."""
    with Broker() as broker, by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)
        with stopped(broker):
            for _ in range(300):
                broker.process.send_signal(signal.SIGHUP)
                broker.process.send_signal(signal.SIGCHLD)
            broker.process.terminate()
        # What has begun is finished.
        assert peer.mount()[1] == ["/"]
        assert broker.process.wait(30) == 0


def test_it_hangs_up_without_a_word() -> None:
    """To find that out takes no process."""
    with Stepped() as broker, Fillers(ALICE.running(())) as silent, by(ALICE) as peer:
        silent.fill(10)
        peer.do("connect", count=20)
        broker.turn()
        peer.process.kill()
        peer.process.wait()
        assert [broker.turn() for _ in range(TURNS)] == [0] * TURNS


# ---- turns ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["0", "20"])
@pytest.mark.parametrize(
    "crowd",
    [
        Fillers(ALICE.running(())),
        Fillers(uids=(ALICE.first_subid, 65_536)),
        Fillers(uids=(3_000_000, 65_536)),
    ],
    ids=["one uid", "subordinate uids", "uids of nobody's"],
)
def test_others_get_their_turn(crowd: Fillers, rate: str) -> None:
    """As many connections as the kernel keeps, and more as soon as there is room for them."""
    with Stepped(rate=rate) as broker, crowd, by(BOB) as bob:
        # It has been flooded for a while, and all that there is room for is theirs.
        for _ in range(3):
            assert crowd.fill() > 1000
            broker.turn()
        assert crowd.fill(1000) == 1000
        assert bob.do("connect") == {}
        bob.send(request(ASK))
        crowd.fill()
        served = [broker.turn() for _ in range(TURNS) if crowd.fill() >= 0]
        assert 1 in served, served
        assert "granted" in bob.receive()[0]
        assert bob.mount()[1] == ["/"]


def test_nobody_s_log_is_filled_by_connecting() -> None:
    """Those that come too fast are dropped unheard, and counted."""
    with DevLog() as log:
        with Stepped(rate="0.001", prefix=log.prefix) as broker:
            with Fillers(ALICE.running(())) as crowd:
                came = 0
                for _ in range(5):
                    came += crowd.fill()
                    broker.turn()
            lines = log.lines()
            for _ in range(TURNS):
                broker.turn()
                lines += log.lines()
            with by(ALICE) as peer:
                assert peer.do("connect") == {}
                broker.turn()
                # Whoever is dropped like that sees the end, and nothing before it.
                assert peer.do("recv") == {"data": "", "fds": []}
        lines += log.lines()
    mark = f" connections of uid {ALICE.uid}"
    (dropped,) = (line.text for line in lines if mark in line.text)
    unheard = int(dropped.split()[1])
    # Of the others each is on record, and there are no more than may be at first.
    assert 0 < came + 1 - unheard < 200
    assert len(lines) < 200


def test_a_grant_while_four_hundred_connect() -> None:
    with Broker(rate="20") as broker, by(BOB) as bob:
        before = broker.fds()
        with Crowd(400, ALICE.running(())):
            for _ in range(3):
                granted(bob)
        broker.quiet(before)


# ---- the record -----------------------------------------------------------------------------


def test_nobody_s_refusals_fill_the_disk() -> None:
    """Each is refused for as much as a request may have; what isn't on record is counted."""
    asked = {f"io.bpffs.{number}": "\U0001f41d" * 500 for number in range(32)}
    message = json.dumps(request(asked, identity="huge"), ensure_ascii=False).encode()
    assert LONGEST - 2048 < len(message) <= LONGEST
    before = audited()
    size = AUDIT.stat().st_size
    with Broker(), by(ALICE) as peer, by(BOB) as other:
        for _ in range(40):
            peer.do("connect")
            peer.send(message)
            assert peer.receive()[0]["code"] == BAD_ANNOTATION
            peer.do("close")
        assert AUDIT.stat().st_size - size <= OF_USER
        assert other.ask(io(delegate_cmd="x"), identity="small")["code"] == BAD_ANNOTATION
    lines = audited()[len(before) :]
    huge = [line for line in lines if line.get("container") == "huge"]
    assert [line["container"] for line in lines if line["outcome"] == "refused"][-1] == "small"
    # It is told at the latest when the broker ends.
    (more,) = (line for line in lines if line["outcome"] == "more")
    assert more["user"] == ALICE.uid
    assert more["refused"] == 40 - len(huge) > 0 < len(huge)


# ---- all of it ------------------------------------------------------------------------------

_STEPS = 120


class _Storm:
    """Users that do to a broker whatever they can, by a seed: each a step at a time."""

    def __init__(self, seed: int, broker: Broker) -> None:
        self._random = random.Random(seed)
        self._broker = broker
        self._peers: list[Peer] = []
        self._stack = ExitStack()
        self._acts = [
            self._connect,
            self._connect,
            self._garbage,
            self._ask,
            self._ask_and_leave,
            self._fds,
            self._end,
            self._nested,
            self._elsewhere,
            self._batch,
            self._reload,
            self._kill_one,
        ]

    def __enter__(self) -> "_Storm":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self) -> None:
        while len(self._peers) < 4:
            self._come(self._random.choice([ALICE, BOB]).running(ALONE))
        self._random.choice(self._acts)(self._random.choice(self._peers))

    def _come(self, prefix: list[str]) -> None:
        if len(self._peers) > 6:
            self._end(self._peers[0])
        self._peers.append(self._stack.enter_context(Peer(prefix)))

    def _connect(self, peer: Peer) -> None:
        peer.do("connect", count=self._random.choice([1, 5, 60, 200]))

    def _garbage(self, peer: Peer) -> None:
        peer.do("connect")
        peer.send(self._random.randbytes(self._random.choice([1, 100, 60_000])))

    def _ask(self, peer: Peer) -> None:
        for _ in range(self._random.choice([1, 10])):
            peer.do("connect")
            peer.send(request(ASK))

    def _ask_and_leave(self, peer: Peer) -> None:
        self._ask(peer)
        peer.do("close")
        peer.do("connect")

    def _fds(self, peer: Peer) -> None:
        peer.do("connect")
        peer.send(request(ASK), fds=self._random.choice([1, 100]))

    def _end(self, peer: Peer) -> None:
        self._peers.remove(peer)
        peer.process.kill()
        peer.process.wait()

    def _nested(self, _: Peer) -> None:
        self._come(ALICE.running([*ALONE, *ALONE]))
        self._connect(self._peers[-1])

    def _elsewhere(self, _: Peer) -> None:
        """On the host, where nobody gets anything."""
        self._come(BOB.running(["env", "--"]))
        self._connect(self._peers[-1])

    def _batch(self, peer: Peer) -> None:
        """What several do at once."""
        with stopped(self._broker):
            for one in (peer, *self._peers):
                one.do("connect", count=30)
                one.send(request(ASK))

    def _reload(self, _: Peer) -> None:
        self._broker.process.send_signal(signal.SIGHUP)

    def _kill_one(self, _: Peer) -> None:
        """As the kernel does without memory."""
        for pid in self._broker.children():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm(seed: int) -> None:
    """Whatever is done in whatever order, others are served, and nothing is left."""
    mounts = Path("/proc/self/mountinfo").read_text()
    prefix = ["prlimit", "--nofile=160:160", "--"]
    with Broker(prefix=prefix) as broker, Peer(GOOD) as good:
        before = broker.fds()
        with _Storm(seed, broker) as storm:
            for number in range(_STEPS):
                storm.step()
                if number % 20 == 0:
                    granted(good)
        good.process.kill()
        broker.quiet(before)
        assert broker.children() == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


# A third user, who does nothing wrong.
GOOD = ["setpriv", "--reuid=61004", "--regid=61004", "--clear-groups", "--", *ALONE]
