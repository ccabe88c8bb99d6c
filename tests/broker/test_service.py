"""The broker as a service: who gets what, and what no peer can do to it or to the others."""

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.broker.wire import LONGEST
from oci_bpf_hook.errors import (
    BAD_ANNOTATION,
    BAD_POLICY,
    BAD_STATE,
    NO_BROKER,
    NO_USER_NAMESPACE,
    REFUSED,
    UNKNOWN_NAME,
)
from tests.support.broker import ALONE, GO_ON, Broker, Peer, request
from tests.support.places import ROOT
from tests.support.policy import POLICY, UNCONFINED, audited, in_force, trusting
from tests.support.sandbox import bubblewrap
from tests.support.scratch import FIRST_ID, IDS, Scratch, bpf_mounts, install, io
from tests.support.users import ALICE, BOB, GROUP, User, appended, users

ASK = io(delegate_cmds="map_create:prog_load")
SCHEMA = json.loads((ROOT / "schema" / "wire.schema.json").read_text())
AUDIT_SCHEMA = json.loads((ROOT / "schema" / "audit.schema.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def everybody() -> Iterator[None]:
    with users():
        yield


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as running:
        before = running.fds()
        yield running
        if running.process.poll() is None:
            running.quiet(before)


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


def by(user: User) -> Peer:
    """A process in a user and mount namespace that `user` has made."""
    return Peer(user.running(ALONE))


def valid(message: dict[str, Any]) -> dict[str, Any]:
    jsonschema.Draft202012Validator(SCHEMA).validate(message)
    return message


def refused(answer: dict[str, Any], code: int, *words: str) -> None:
    valid(answer)
    assert answer["code"] == code, answer
    said = " ".join(answer["problems"])
    assert [word for word in words if word not in said] == []
    assert "Traceback" not in said
    assert "oci_bpf_hook/" not in said
    assert str(ROOT) not in said


# ---- who gets what -----------------------------------------------------------------------


def test_a_users_container(broker: Broker) -> None:
    with by(ALICE) as peer:
        answer = valid(peer.ask(ASK))
        assert answer["granted"] == {"delegate_cmds": "0x21"}
        assert answer["rule"] == "everything"
        message, fds = peer.mount()
        assert valid(message) == {"version": 1, "mounted": True}
        # A directory of a file system that is mounted nowhere.
        assert fds == ["/"]


def test_the_mount_is_the_peers_own_and_nowhere_yet(broker: Broker, container: Scratch) -> None:
    before = bpf_mounts()
    with Peer(container.entering()) as peer:
        peer.ask(ASK)
        assert peer.mount()[1] == ["/"]
        container.assert_untouched()
    assert bpf_mounts() == before


def test_two_users_with_two_policies(broker: Broker) -> None:
    text = f"""\
version: 1
rules:
- {{name: of-alice, match: {{user: {ALICE.name}}}, allow: {{delegate_cmds: [map_create],
    delegate_maps: [hash]}}}}
- {{name: of-bob, match: {{user: {BOB.uid}}}, allow: {{delegate_cmds: [prog_load]}}}}
"""
    maps = io(delegate_cmds="map_create", delegate_maps="hash")
    with in_force(trusting(text)), by(ALICE) as alice, by(BOB) as bob:
        assert alice.ask(maps)["rule"] == "of-alice"
        assert bob.ask(io(delegate_cmds="prog_load"))["rule"] == "of-bob"
        refused(bob.ask(maps), REFUSED, 'rule "of-bob" doesn\'t allow', f"user: {BOB.uid}")
        refused(alice.ask(io(delegate_cmds="prog_load")), REFUSED, 'rule "of-alice"')


def test_the_built_in_policy_for_a_user(broker: Broker) -> None:
    """A user goes from the host's network into a namespace of their own, token in hand."""
    with in_force(UNCONFINED), by(ALICE) as peer:
        sockets = io(delegate_cmds="prog_load", delegate_progs="socket_filter")
        assert peer.ask(sockets)["granted"] == {"delegate_cmds": "0x20", "delegate_progs": "0x2"}
        for program in ("xdp", "sched_cls", "cgroup_skb", "kprobe"):
            wanted = io(delegate_cmds="prog_load", delegate_progs=program)
            refused(peer.ask(wanted), REFUSED, program, "host-network")


GROUPS = f"""\
version: 1
rules:
- {{name: members, match: {{group: {GROUP[0]}}}, allow: {{delegate_cmds: [any]}}}}
"""


def test_a_users_groups(broker: Broker) -> None:
    """What the host's database says, though the container's root has no group of the host's."""
    with in_force(trusting(GROUPS)), by(ALICE) as alice, by(BOB) as bob:
        assert alice.ask(ASK)["rule"] == "members"
        refused(bob.ask(ASK), REFUSED, "no rule of the policy")


OF_ROOT = """\
version: 1
rules:
- {name: of-root, match: {user: root, rootless: false}, allow: {delegate_cmds: [any]}}
- {name: of-bob, match: {user: obh-bob}, allow: {delegate_cmds: [map_create, prog_load]}}
- {name: of-users, match: {rootless: true}, allow: {}}
"""


def test_a_rootful_container_asks_for_root(broker: Broker, container: Scratch) -> None:
    """And for the user whose range its ids lie in, as that user may be behind it."""
    with in_force(trusting(OF_ROOT)), Peer(container.entering()) as peer:
        assert peer.ask(ASK)["rule"] == "of-root"
        with appended(Path("/etc/subuid"), [f"{BOB.name}:{FIRST_ID + IDS - 1}:65536"]):
            assert peer.ask(ASK)["rule"] == "of-bob"
            assert peer.mount()[1] == ["/"]
            assert audited()[-1]["requester"]["rootless"] is True


def test_a_user_in_a_set_user_id_sandbox_is_not_root(broker: Broker) -> None:
    with bubblewrap() as bwrap, in_force(trusting(OF_ROOT)), Peer(ALICE.running(bwrap)) as peer:
        refused(peer.ask(ASK), REFUSED, 'rule "of-users"')
        assert audited()[-1]["requester"]["user"] == ALICE.uid


def test_a_flood_from_a_set_user_id_sandbox_is_its_user_s(
    broker: Broker, container: Scratch
) -> None:
    """It takes nothing of what is there for root."""
    with bubblewrap() as bwrap, in_force(trusting(OF_ROOT)), Peer(ALICE.running(bwrap)) as alice:
        assert alice.do("connect", count=129) == {}
        refused(alice.receive()[0], NO_BROKER, "too many requests of this user")
        with Peer(container.entering()) as peer:
            assert peer.ask(ASK)["rule"] == "of-root"


OF_OWN_NETWORKS = """\
version: 1
rules: [{name: own, match: {host_network: false}, allow: {delegate_cmds: [any]}}]
"""


@pytest.mark.parametrize("own", [True, False], ids=["own-network", "host-s-network"])
def test_a_peer_that_leaves_its_container_s_network(broker: Broker, *, own: bool) -> None:
    """It asks from a network namespace of its own, and uses the token in the container's."""
    with (
        in_force(trusting(OF_OWN_NETWORKS)),
        Scratch(network=own) as scratch,
        Peer([*scratch.entering(), "unshare", "--net", "--"]) as peer,
    ):
        if own:
            assert peer.ask(ASK)["rule"] == "own"
        else:
            refused(peer.ask(ASK), REFUSED, "no rule of the policy")


def test_a_peer_in_a_nested_namespace_of_root_s(broker: Broker) -> None:
    with (
        in_force(trusting(OF_OWN_NETWORKS)),
        Scratch(network=True) as scratch,
        Peer([*scratch.entering(), *ALONE]) as peer,
    ):
        refused(peer.ask(ASK), REFUSED, "no rule of the policy")


def test_a_subordinate_id_counts_as_its_user(broker: Broker) -> None:
    """A process with one of alice's, outside of any container, that makes a user namespace."""
    text = f"version: 1\nrules: [{{name: a, match: {{user: {ALICE.name}}}, allow: {{}}}}]\n"
    text = text.replace("allow: {}", "allow: {delegate_cmds: [any]}")
    number = str(ALICE.first_subid + 7)
    prefix = ["setpriv", "--reuid", number, "--regid", number, "--clear-groups", "--", *ALONE]
    with in_force(trusting(text)), Peer(prefix) as peer:
        assert peer.ask(ASK)["rule"] == "a"
    stranger = [word.replace(number, "4000007") for word in prefix]
    with in_force(trusting(text)), Peer(stranger) as peer:
        refused(peer.ask(ASK), REFUSED, "no rule")


def test_a_nested_user_namespace(broker: Broker) -> None:
    """It asks for whoever made the outermost one, and the mount is of the innermost."""
    text = f"version: 1\nrules: [{{name: a, match: {{user: {ALICE.name}}}, allow: "
    text += "{delegate_cmds: [any]}}]\n"
    with in_force(trusting(text)), Peer(ALICE.running([*ALONE, *ALONE, *ALONE])) as peer:
        assert peer.ask(ASK)["rule"] == "a"
        assert peer.mount()[1] == ["/"]


# ---- claims ------------------------------------------------------------------------------

CLAIMS = """\
version: 1
engine: cri-o
rules:
- {name: evil, match: {container: "evil*"}, deny: not this one}
- {name: monitoring, match: {namespace: monitoring}, allow: {delegate_cmds: [any]}}
- {name: image, match: {image: "registry.example/*"}, allow: {delegate_cmds: [any]}}
- {name: engine, match: {engine: cri-o}, allow: {delegate_cmds: [any]}}
- {name: annotated, match: {annotations: {team: "*"}}, allow: {delegate_cmds: [any]}}
- {name: last, allow: {delegate_cmds: [map_create]}}
"""


def test_claims_give_nothing_and_may_take_away(broker: Broker) -> None:
    """Any process of a user's speaks to the broker: what it says of itself is its own word."""
    told = {"namespace": "monitoring", "image": "registry.example/agent", "pod": "p"}
    before = len(audited())
    with in_force(trusting(CLAIMS)), by(ALICE) as peer:
        refused(peer.ask(ASK, container="web", **told), REFUSED, 'rule "last" doesn\'t allow')
        refused(peer.ask(ASK, container="evil-1"), REFUSED, "not this one")
    first, second = audited()[before:]
    assert first["requester"]["claimed"] == ["container", "image", "namespace", "pod"]
    assert first["requester"]["user"] == ALICE.uid
    assert second["requester"]["claimed"] == ["container"]
    for line in (first, second):
        jsonschema.Draft202012Validator(AUDIT_SCHEMA).validate(line)
        assert line["peer"]["uid"] == ALICE.uid


def test_a_claim_of_another_user_is_none_that_there_is(broker: Broker) -> None:
    with by(BOB) as peer:
        refused(peer.ask(ASK, user=ALICE.name), BAD_STATE, "has an unknown claim")


def test_nothing_is_left_of_a_request(broker: Broker) -> None:
    """Names that only newer kernels have, dropped as it wants."""
    with by(ALICE) as peer:
        answer = valid(peer.ask(io(delegate_progs="0x0", on_unknown="drop")))
        assert answer["granted"] == {}
        assert peer.receive()[0] == {}


def test_a_recording(broker: Broker) -> None:
    """All that the policy allows, for whom it lets be recorded."""
    text = """\
version: 1
rules: [{name: r, allow: {delegate_cmds: [map_create], delegate_maps: [hash], record: true}}]
"""
    with by(ALICE) as peer:
        refused(peer.ask(io(record="web")), REFUSED, "record")
        with in_force(text):
            answer = peer.ask(io(record="web"))
    assert answer["granted"] == {"delegate_cmds": "0x1", "delegate_maps": "0x2"}


def test_on_record(broker: Broker) -> None:
    before = len(audited())
    with by(ALICE) as peer:
        peer.ask(ASK, identity="web")
        # A decision that nobody makes use of isn't a grant.
        assert len(audited()) == before
        peer.mount()
        refused(peer.ask(io(delegate_cmds="no_such"), identity="web"), UNKNOWN_NAME, "no_such")
        refused(peer.ask(io(profile="no-such")), UNKNOWN_NAME, "no profile")
        refused(peer.ask(io(delegate_cmd="x")), BAD_ANNOTATION, "did you mean")
        refused(peer.ask({}), BAD_ANNOTATION, "nothing is asked for")
    lines = audited()[before:]
    assert [line["outcome"] for line in lines] == ["granted", *["refused"] * 4]
    assert lines[0]["container"] == "web"
    assert lines[0]["granted"] == {"delegate_cmds": "map_create:prog_load"}
    for line in lines:
        jsonschema.Draft202012Validator(AUDIT_SCHEMA).validate(line)


def test_what_cant_be_recorded_isnt_given(broker: Broker) -> None:
    text = POLICY.read_text() + "audit: {to: /proc/no/such}\n"
    with in_force(text), by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)
        answer, fds = peer.mount()
        # Where the record is, is the administrator's business.
        refused(answer, REFUSED, "can't be recorded, which the policy requires")
        assert "/proc" not in json.dumps(answer)
        assert fds == []


# ---- the policy --------------------------------------------------------------------------


def test_the_policy_is_read_again_when_it_changes(broker: Broker) -> None:
    with by(ALICE) as peer:
        assert peer.ask(ASK)["rule"] == "everything"
        with in_force("version: 1\nrules: [{name: closed, deny: closed today}]\n"):
            refused(peer.ask(ASK), REFUSED, "closed today")
        assert peer.ask(ASK)["rule"] == "everything"


def test_a_policy_out_of_order_gives_nothing_and_tells_nobody(broker: Broker) -> None:
    with in_force("version: 1\nrules: [{secret}]\n"), by(ALICE) as peer:
        answer = peer.ask(ASK)
        refused(answer, BAD_POLICY, "policy has an error")
        assert "secret" not in json.dumps(answer)
        assert "/etc" not in json.dumps(answer)
    with by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


def test_sighup(broker: Broker) -> None:
    broker.process.send_signal(signal.SIGHUP)
    with by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


# ---- hostile peers -----------------------------------------------------------------------


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


def test_silence(broker: Broker) -> None:
    """A thousand connections that say nothing, and one that stops halfway: others are served."""
    with by(ALICE) as peer, by(BOB) as bob, by(ALICE) as halfway:
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


# ---- its own life ------------------------------------------------------------------------


def test_sigterm_finishes_what_has_begun(broker: Broker) -> None:
    with by(ALICE) as peer, by(BOB) as silent:
        silent.do("connect")
        assert "granted" in peer.ask(ASK)
        broker.process.terminate()
        refused(silent.receive()[0], NO_BROKER, "stopping")
        answer, fds = peer.mount()
        assert (answer, fds) == ({"version": 1, "mounted": True}, ["/"])
        assert broker.process.wait(10) == 0
        assert "error" in peer.do("connect")


def test_a_socket_from_systemd_and_the_end_when_idle() -> None:
    with Broker("--idle", "0.01", passed=True) as broker:
        assert broker.process.wait(10) == 0
    with Broker("--idle", "5", passed=True) as broker, by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_isnt_one(tmp_path: Path, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(tmp_path / "s"))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        exec_it = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0'
        command = [sys.executable, "-m", "oci_bpf_hook", "broker"]
        done = subprocess.run(
            ["sh", "-c", exec_it, "sh", *command],
            cwd=ROOT,
            stdin=sock.fileno(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == NO_BROKER
    assert "ListenSequentialPacket" in done.stderr


def test_a_second_broker(broker: Broker) -> None:
    command = [sys.executable, "-m", "oci_bpf_hook", "broker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == NO_BROKER
    assert "another broker already listens" in done.stderr
    with by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


def test_killed_it_needs_no_cleaning_up() -> None:
    with Broker() as broker:
        broker.kill()
    with Broker(), by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)


def test_its_requests_end_with_it(broker: Broker) -> None:
    with by(ALICE) as peer:
        assert "granted" in peer.ask(ASK)
        (child,) = broker.children()
        pidfd = os.pidfd_open(child)
        try:
            broker.kill()
            assert select.select([pidfd], [], [], 10)[0]
        finally:
            os.close(pidfd)
        assert peer.receive()[0] == {}


def test_the_sockets_mode_and_group(tmp_path: Path) -> None:
    path = tmp_path / "a" / "s"
    with Broker("--mode", "0660", "--group", GROUP[0], path=str(path)):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == 0o660
        assert (status.st_uid, status.st_gid) == (0, GROUP[1])
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    with Broker() as broker:
        assert stat.S_IMODE(Path(broker.path).stat().st_mode) == 0o666


@pytest.mark.parametrize(
    ("prefix", "words"),
    [(["unshare", "-Ur"], "initial user namespace"), (["setpriv", "--reuid=61001"], "root's")],
)
def test_where_it_cant_work(prefix: list[str], words: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        package = install(Path(directory) / "installed").parent
        command = [*prefix, "/usr/bin/python3", "-m", "oci_bpf_hook", "broker"]
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
    assert (done.returncode, words in done.stderr) == (NO_BROKER, True), done.stderr


def test_a_thousand_requests_leave_nothing(broker: Broker) -> None:
    """Granted, refused, broken off, and no request at all; each could leave an fd or a process."""
    mounts = Path("/proc/self/mountinfo").read_text()
    fds = broker.fds()
    with by(ALICE) as alice, by(BOB) as bob:
        for peer in (alice, bob):
            peer.begin_many(500, ASK)
        assert [peer.end_many() for peer in (alice, bob)] == [250, 250]
    broker.quiet(fds)
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_few_file_descriptors() -> None:
    """Whoever has most of the connections loses the oldest for somebody else's."""
    with Broker(prefix=["prlimit", "--nofile=48:48", "--"]), by(ALICE) as peer, by(BOB) as bob:
        assert peer.do("connect", count=60) == {}
        assert "granted" in bob.ask(ASK)
        assert bob.mount()[1] == ["/"]
        refused(peer.receive(number=0)[0], NO_BROKER, "too many requests")


def test_the_directory_is_made_and_no_other_is_changed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    with Broker(path=str(tmp_path / "there" / "s")):
        assert stat.S_IMODE((tmp_path / "there").stat().st_mode) == 0o700
