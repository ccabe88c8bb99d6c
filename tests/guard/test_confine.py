"""A confined grant of prog_load is made with the guard in force, and otherwise not at all.

What the guard does is tested where it can run; here it can't.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.errors import DONE, REFUSED
from tests.support.broker import ALONE, Broker, Peer
from tests.support.policy import audited, in_force, without_guard
from tests.support.scratch import Scratch, assert_failed, io, run_hook
from tests.support.situation import command
from tests.support.users import ALICE, users

MAPS = io(delegate_cmds="map_create,btf_load", delegate_maps="hash")
PROGRAMS = io(
    delegate_cmds="prog_load",
    delegate_progs="socket_filter",
    delegate_attachs="cgroup_inet_ingress",
)
COMMAND = "oci-bpf-hook guard on"
TRUSTS = "which trusts the container with the kernel"
NO_GUARD = ("needs the guard, which isn't in force: the guard isn't loaded", COMMAND, TRUSTS)
RULE = "version: 1\nrules:\n- {name: one, allow: {%s delegate_cmds: [any], delegate_maps: [hash], \
delegate_progs: [any], delegate_attachs: [any]}}\n"


@pytest.fixture(scope="module", autouse=True)
def no_guard() -> Iterator[None]:
    with without_guard():
        yield


def pasted(text: str) -> str:
    """The policy that a refusal says to write."""
    _, dash, rule = text.partition("- {name: NAME")
    return f"version: 1\nrules:\n{dash}{rule.partition(' (exit code')[0]}\n"


@pytest.mark.parametrize("text", [None, RULE % "", RULE % "confined: true,"])
def test_no_programs_without_the_guard(text: str | None) -> None:
    with in_force(text), Scratch() as container:
        result = container.hook(PROGRAMS)
        assert_failed(result, REFUSED, *NO_GUARD, container=container)
        container.assert_untouched()
        line = audited()[-1]
        assert (line["outcome"], line["code"], line["granted"]) == ("refused", REFUSED, None)
        assert line["rule"] == ("one" if text else "host-network")
        assert f'rule "{line["rule"]}" is confined' in line["problems"][0]
    # The rule that it says to write is another way out, and says what it means.
    with in_force(pasted(result.stderr)), Scratch() as container:
        result = container.hook(PROGRAMS)
        assert (result.returncode, len(container.mounts())) == (DONE, 1)
        assert audited()[-1]["confined"] is False


def test_the_command_comes_first() -> None:
    with in_force(None), Scratch() as container:
        words = container.hook(PROGRAMS).stderr
    assert 0 < words.index(COMMAND) < words.index(TRUSTS) < words.index("confined: false")


def test_maps_have_no_need_of_it() -> None:
    with in_force(None), Scratch() as container:
        assert container.hook(MAPS).returncode == DONE
        assert len(container.mounts()) == 1
        line = audited()[-1]
        assert (line["confined"], line["granted"]["delegate_maps"]) == (True, "hash")


@pytest.mark.parametrize("program", ["kprobe", "tracing", "syscall", "ext", "lirc_mode2"])
def test_types_that_are_never_confined(program: str) -> None:
    """That is said at once, where the kernel would say EPERM and no more."""
    asked = PROGRAMS | io(delegate_progs=f"socket_filter,{program}")
    never = f'is confined, and a confined token is never given io.bpffs.delegate_progs "{program}"'
    with in_force(RULE % ""), Scratch() as container:
        result = container.hook(asked)
        assert_failed(result, REFUSED, never, TRUSTS, container=container)
    with in_force(pasted(result.stderr)), Scratch() as container:
        assert container.hook(asked).returncode == DONE


def test_a_device() -> None:
    with in_force(None), Scratch() as container:
        state = json.dumps(container.state({}))
        result = run_hook(state, "--profile", "xdp")
        assert_failed(result, REFUSED, 'rule "cdi:xdp" is confined', *NO_GUARD, container=container)
        assert audited()[-1]["rule"] == "cdi:xdp"
    with in_force(None), Scratch() as container:
        result = run_hook(json.dumps(container.state({})), "--profile", "tracing")
        never = "never given io.bpffs.profile's delegate_progs"
        assert_failed(result, REFUSED, never, TRUSTS, container=container)
    # A rule that trusts the device.
    rule = RULE % "confined: false," + "- {name: d, match: {cdi: xdp}, allow: {confined: %s%s}}\n"
    profiles = "profiles: {xdp: {delegate_cmds: [prog_load]}}\n"
    for confined, code in (("false", DONE), ("true", REFUSED)):
        text = profiles + rule % (confined, ", profiles: [xdp]")
        with in_force(text), Scratch() as container:
            state = json.dumps(container.state({}))
            assert run_hook(state, "--profile", "xdp").returncode == code
            assert audited()[-1]["rule"] == "d"


def test_a_peer_of_the_broker() -> None:
    with users(), in_force(None), Broker(), Peer(ALICE.running(ALONE)) as peer:
        answer = peer.ask(PROGRAMS)
        assert answer["code"] == REFUSED
        for words in (*NO_GUARD, f"match: {{user: {ALICE.uid}}}, allow: {{confined: false"):
            assert words in answer["problems"][0]
        assert audited()[-1]["rule"] == "host-network"
    with users(), in_force(None), Broker(), Peer(ALICE.running(ALONE)) as peer:
        assert "granted" in peer.ask(MAPS)


def test_delegate() -> None:
    programs = ("--cmds=prog_load", "--progs=socket_filter", "--attachs=0x1")
    with in_force(None), Scratch() as container:
        pid = str(container.init.pid)
        for arguments in (programs, ("--dry-run", *programs)):
            done = command("delegate", "--pid", pid, *arguments)
            assert (done.returncode, done.stdout) == (REFUSED, "")
            assert [words for words in NO_GUARD if words not in done.stderr] == []
        container.assert_untouched()
        done = command("delegate", "--pid", pid, "--cmds=map_create", "--maps=hash")
        assert done.returncode == DONE


def test_a_recording_of_the_administrator_s(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with in_force(None):
        done = command("record", "--", "touch", str(seen))
        assert (done.returncode, seen.exists()) == (REFUSED, False)
        assert [words for words in NO_GUARD if words not in done.stderr] == []
        assert audited()[-1]["code"] == REFUSED
