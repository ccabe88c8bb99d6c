"""What the broker is asked wrongly, by whom it may not be asked, and peers that hold it up."""

import json

import pytest

from oci_bpf_hook.broker.wire import LONGEST
from oci_bpf_hook.errors import BAD_STATE, NO_BROKER, NO_USER_NAMESPACE, UNKNOWN_NAME
from tests.support.broker import ALONE, GO_ON, Broker, Peer, request
from tests.support.peers import ASK, by, refused
from tests.support.scratch import io
from tests.support.users import ALICE, BOB

pytestmark = pytest.mark.usefixtures("everybody")


def test_a_process_of_the_hosts(broker: Broker) -> None:
    with Peer(ALICE.running(["env", "--"])) as peer:
        peer.do("connect")
        refused(peer.receive()[0], NO_USER_NAMESPACE, "no user namespace of its own")


def test_a_uid_that_isnt_mapped(broker: Broker) -> None:
    with Peer(ALICE.running(["unshare", "--user", "--mount", "--"])) as peer:
        peer.do("connect")
        refused(peer.receive()[0], NO_USER_NAMESPACE, "no id in its own user namespace")


def test_the_hosts_mount_namespace(broker: Broker) -> None:
    with Peer(ALICE.running(["unshare", "--user", "--map-root-user", "--"])) as peer:
        peer.do("connect")
        refused(peer.receive()[0], NO_USER_NAMESPACE, "mount namespace")


def test_the_shim_for_the_hosts_root(broker: Broker) -> None:
    """As the hook in a container of root's that maps it: there the library could be changed."""
    with Peer(ALONE) as peer:
        refused(peer.ask(ASK | io(shim="true")), BAD_STATE, "maps the host's uid 0")
        assert "granted" in peer.ask(ASK)


GOOD = json.dumps(request(ASK)).encode()
MESSAGES = {
    "half a message": (GOOD[: len(GOOD) // 2], BAD_STATE, "isn't JSON"),
    "two messages": (GOOD + GOOD, BAD_STATE, "isn't JSON"),
    "not UTF-8": (b"\xff" * 9, BAD_STATE, "isn't JSON"),
    "nested": (b"[" * 60_000, BAD_STATE, "isn't JSON"),
    "a list": (b"[]", BAD_STATE, "isn't a JSON object"),
    "null": (b"null", BAD_STATE, "isn't a JSON object"),
    "a key twice": (GOOD[:-1] + b', "id": "y"}', BAD_STATE, "comes twice"),
    "no version": ({"id": "x", "annotations": {}, "claims": {}}, BAD_STATE, "has no version"),
    "version true": ({**request(ASK), "version": True}, BAD_STATE, "has no version"),
    "version 2": ({**request(ASK), "version": 2}, NO_BROKER, "different releases"),
    "another key": ({**request(ASK), "root": "/"}, BAD_STATE, "has the keys"),
    "a key missing": ({"version": 1, "id": "x", "claims": {}}, BAD_STATE, "has the keys"),
    "id a number": ({**request(ASK), "id": 7}, BAD_STATE, "id that isn't a string"),
    "id long": ({**request(ASK), "id": "x" * 1025}, BAD_STATE, "id that isn't a string"),
    "a number asked for": (
        {**request(ASK), "annotations": {"a": 1}},
        BAD_STATE,
        "whose values aren't all strings",
    ),
    "another claim": ({**request(ASK), "claims": {"uid": "0"}}, BAD_STATE, "has an unknown claim"),
    "going on at once": (GO_ON, BAD_STATE, "has the keys"),
    "too long": (b" " * (LONGEST + 1), BAD_STATE, f"more than {LONGEST} bytes"),
    "a megabyte of items": (
        request(io(delegate_cmds=":".join(f"x{n}" for n in range(7000)))),
        UNKNOWN_NAME,
        "no command is called",
    ),
}


@pytest.mark.parametrize(("message", "code", "words"), MESSAGES.values(), ids=MESSAGES)
def test_what_is_no_request(broker: Broker, message: object, code: int, words: str) -> None:
    with by(ALICE) as peer:
        peer.do("connect")
        peer.send(message)
        refused(peer.receive()[0], code, words)
        assert peer.receive()[0] == {}  # The end.
        assert "granted" in peer.ask(ASK)


def test_the_longest_request_there_is(broker: Broker) -> None:
    with by(ALICE) as peer:
        peer.do("connect")
        peer.send(GOOD + b" " * (LONGEST - len(GOOD)))
        assert "granted" in peer.receive()[0]


def test_something_else_than_going_on(broker: Broker) -> None:
    with by(ALICE) as peer:
        for message in ({"version": 1, "mount": 1}, request(ASK), b"x", b"null"):
            assert "granted" in peer.ask(ASK)
            peer.send(message)
            answer, fds = peer.receive()
            refused(answer, BAD_STATE)
            assert fds == []


def test_fds_are_closed_and_refused(broker: Broker) -> None:
    with by(ALICE) as peer:
        for count in (1, 2, 200):
            peer.do("connect")
            # It returns only once nobody holds them.
            assert peer.send(request(ASK), fds=count) == {"closed": [True] * count}
            refused(peer.receive()[0], BAD_STATE, "came with fds")
        peer.ask(ASK)
        assert peer.send(GO_ON, fds=1) == {"closed": [True]}
        refused(peer.receive()[0], BAD_STATE, "came with fds")


def test_it_ends_after_asking(broker: Broker) -> None:
    with by(ALICE) as peer:
        peer.do("connect")
        peer.send(request(ASK))
    with by(ALICE) as peer:
        peer.ask(ASK)
        peer.send(GO_ON)
    with by(ALICE) as peer:
        peer.do("connect", count=50)
    with by(BOB) as peer:
        assert "granted" in peer.ask(ASK)
        # The next test would see whatever of it stayed.
        peer.mount()


def test_it_changes_its_namespaces(broker: Broker) -> None:
    """Between the decision and the mount it goes into others, which the mount isn't for."""
    for flags in (0x20000, 0x10000000 | 0x20000):
        with by(ALICE) as peer:
            assert "granted" in peer.ask(ASK)
            assert peer.do("unshare", flags=flags) == {}
            answer, fds = peer.mount()
            refused(answer, BAD_STATE, "has changed its namespaces")
            assert fds == []


def test_it_executes_a_setuid_program_of_the_hosts(broker: Broker) -> None:
    """Who connects and becomes root has still no user namespace."""
    with Peer(ALICE.running(["env", "--"])) as peer:
        peer.do("connect")
        peer.tell("exec", argv=["/usr/bin/newuidmap", "1"])
        peer.process.wait(10)
    with by(ALICE) as peer:
        peer.do("connect")
        peer.send(request(ASK))
        peer.tell("exec", argv=["/usr/bin/newuidmap", "1"])
        peer.process.wait(10)
    with by(BOB) as peer:
        assert "granted" in peer.ask(ASK)


def test_silence() -> None:
    """A thousand connections that say nothing, and one that stops halfway: others are served."""
    with Broker() as broker, by(ALICE) as peer, by(BOB) as bob, by(ALICE) as halfway:
        before = broker.fds()
        assert "granted" in halfway.ask(ASK)
        assert peer.do("connect", count=600) == {}
        assert "granted" in bob.ask(ASK)
        assert bob.mount()[1] == ["/"]
        assert peer.do("connect", count=400) == {}
        assert "granted" in bob.ask(ASK)
        # The first has been silent for too long, the last was one too many.
        refused(peer.receive(number=0)[0], NO_BROKER, "nothing was asked for")
        refused(peer.receive(number=999)[0], NO_BROKER, "too many requests of this user")
        assert halfway.receive()[0] == {}
        assert "granted" in peer.ask(ASK)
        for one in (peer, bob, halfway):
            one.process.kill()
        broker.quiet(before)


def test_a_flood_of_one_users(broker: Broker) -> None:
    """Its requests are refused or wait; another user's are served in between."""
    with by(ALICE) as flood, by(BOB) as bob:
        served = 0
        for _ in range(20):
            flood.do("connect", count=20)
            for number in range(-20, 0):
                flood.send(request(ASK), number=number)
            if "granted" in bob.ask(ASK):
                served += bob.mount()[1] == ["/"]
        assert served == 20


def test_too_many_requests_a_second() -> None:
    with Broker(rate="0.001") as broker, by(ALICE) as peer, by(BOB) as bob:
        # No credit is a hundredth of a request.
        peer.do("connect")
        refused(peer.receive()[0], NO_BROKER, "too many requests of this user")
        bob.do("connect")
        refused(bob.receive()[0], NO_BROKER)
        assert broker.children() == []
    with Broker(rate="0.5"), by(ALICE) as peer, by(BOB) as bob:
        answers = [peer.ask(ASK) for _ in range(7)]
        assert ["granted" in answer for answer in answers[:5]] == [True] * 5
        assert not all("granted" in answer for answer in answers)
        assert "granted" in bob.ask(ASK)
