"""The broker as a service: who gets what, by which policy, and what is put on record."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.errors import (
    BAD_ANNOTATION,
    BAD_POLICY,
    BAD_STATE,
    NO_BROKER,
    REFUSED,
    UNKNOWN_NAME,
)
from tests.support.broker import ALONE, Broker, Peer
from tests.support.peers import ASK, by, refused, valid
from tests.support.places import ROOT
from tests.support.policy import POLICY, UNCONFINED, audited, in_force, trusting
from tests.support.sandbox import bubblewrap
from tests.support.scratch import FIRST_ID, IDS, Scratch, bpf_mounts, io
from tests.support.users import ALICE, BOB, GROUP, appended

pytestmark = pytest.mark.usefixtures("everybody")

AUDIT_SCHEMA = json.loads((ROOT / "schema" / "audit.schema.json").read_text())


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


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
