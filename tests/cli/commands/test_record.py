"""`oci-bpf-hook record` with real programs: what they need, what advise says, and the proof."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml

from oci_bpf_hook.advise.feature_probes import LEFT_OUT
from oci_bpf_hook.errors import USAGE
from oci_bpf_hook.resources import schema
from tests.support.command import command as here
from tests.support.consumer import SOURCES, Consumer
from tests.support.podman import World
from tests.support.policy import in_force
from tests.support.recorder import calls, command, record

OBJECTS = sorted(path.name.removesuffix(".bpf.c") for path in SOURCES.glob("*.bpf.c"))
LISTS = ("delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs")


@pytest.fixture(scope="module")
def consumer() -> Iterator[Consumer]:
    with World() as world:
        yield Consumer(world, OBJECTS)


@pytest.mark.parametrize("name", OBJECTS)
def test_record_and_advise_agree(consumer: Consumer, name: str, tmp_path: Path) -> None:
    """Watching libbpf load an object, and reading the object, come to the same lists."""
    saved = str(tmp_path / "recording.json")
    done = record(*consumer.loading([name]), options=["--save", saved])
    assert done.code == 0
    report = json.loads(done.stdout)[f"{name}.o"]
    assert report["result"] == "ok", report["log"]
    for how in ((), ("--exact",)):
        form = ("--format", "json", *how)
        recorded = json.loads(here("record", "--from", saved, *form).stdout)
        advised = json.loads(here("advise", *form, consumer.path(name)).stdout)
        assert {key: recorded[key] for key in LISTS} == {key: advised[key] for key in LISTS}
        # advise reckons with cgroup_skb programs being attached, which here they aren't.
        missing = {*advised["capabilities"]} - {*recorded["capabilities"]}
        assert missing <= ({"net_admin"} if name == "cgroup_skb" else set())
        assert {*recorded["capabilities"]} <= {*advised["capabilities"]}
        # Of what is left out both say the same, and a recording nothing else.
        left_out = [one["code"] for one in advised["warnings"] if one["code"] == LEFT_OUT]
        assert [one["code"] for one in recorded["warnings"]] == left_out


def test_several_at_once(consumer: Consumer) -> None:
    """One's bits change what libbpf makes of another, in a recording as in advise."""
    names = ["xdp_firewall", "cgroup_sock", "cgroup_sockopt"]
    done = record(*consumer.loading(names), options=["--format", "json"])
    recorded = json.loads(done.needed)
    paths = [consumer.path(name) for name in names]
    advised = json.loads(command("advise", "--format", "json", *paths).stdout)
    assert {key: recorded[key] for key in LISTS} == {key: advised[key] for key in LISTS}
    assert {"xdp", "cgroup_sock_ops"} <= {*recorded["delegate_attachs"]}


def test_verified(consumer: Consumer) -> None:
    """Exactly this is enough, and every bit of it is needed: run again, and again."""
    done = record(*consumer.loading(["xdp_firewall"]), options=["--verify"])
    assert done.code == 0
    assert json.loads(done.stdout)["xdp_firewall.o"]["result"] == "ok"
    first, *verdicts = [
        line for line in done.needed.splitlines() if line.startswith(("without", "enough"))
    ]
    assert first == "enough: with exactly this the command does the same"
    assert len(verdicts) == 3 + 8 + 2 + 1
    assert all(": needed: it doesn't get " in line for line in verdicts), verdicts


def test_what_can_be_spared() -> None:
    """A program that copes: what it exits with tells nothing, what it gets does."""
    done = record("sh", "-c", '"$0" own; exit 0', calls(), options=["--verify", "--exact"])
    assert done.code == 0
    lost = "needed: it doesn't get prog_load cgroup_sock cgroup_inet_sock_create"
    assert f"without delegate_progs cgroup_sock: {lost}" in done.needed.splitlines()
    done = record("sh", "-c", '"$0" own; exit 0', calls(), options=["--verify", "--json"])
    found = json.loads(done.needed)
    jsonschema.validate(found, schema("advise"))
    assert found["verified"]["enough"]
    assert {one["name"] for one in found["verified"]["bits"]} == {
        name for option in LISTS for name in found[option]
    }
    # What is to be pasted has nothing else behind it.
    done = record(calls(), "map", "1", options=["--verify", "--format", "policy"])
    assert yaml.safe_load(done.needed)["profiles"]
    assert done.stderr.startswith("enough: ")


def test_not_enough() -> None:
    """A program that looks at what it was given is another one with less."""
    script = 'grep -q delegate_cmds=any /proc/self/mountinfo || exit 5; exec "$0" map 1'
    done = record("sh", "-c", script, calls(), options=["--verify"])
    assert done.code == 1
    assert done.needed.splitlines()[-1] == (
        "not enough: with exactly this it exits with 5 instead of 0 and it doesn't get "
        "map_create array"
    )


def test_refused_while_recorded() -> None:
    with in_force("version: 1\nrules: [{name: r, allow: {delegate_cmds: [map_create]}}]\n"):
        done = record(calls(), "map", "1")
    assert done.stdout == "made 0 failed 1\n"
    assert "refused: map_create array was refused (EPERM) while it was recorded" in done.needed
    assert "delegate_maps: array" in done.needed


def test_output_goes_beside_the_programs() -> None:
    done = command("record", "--", calls(), "map", "1")
    assert done.stdout == "made 1 failed 0\n"
    assert done.stderr.startswith("delegate_cmds: map_create\n")


def test_forms(tmp_path: Path) -> None:
    saved = str(tmp_path / "recording.json")
    assert command("record", "--save", saved, "--", calls(), "map", "1").returncode == 0

    def form(name: str) -> str:
        done = command("record", "--from", saved, "--format", name)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert form("annotations").splitlines() == [
        "--cap-add=BPF",
        "--annotation=io.bpffs.delegate_cmds=map_create",
        "--annotation=io.bpffs.delegate_maps=array",
    ]
    assert yaml.safe_load(form("policy"))["profiles"]["calls"]["delegate_maps"] == ["array"]
    found = json.loads(form("json"))
    jsonschema.validate(found, schema("advise"))
    assert found["reasons"][0]["source"] == "calls map 1"
    assert command("record", "--from", saved, "--json").stdout == form("json")
    assert "map_create array" in form("text")


def test_a_recording_is_no_program(tmp_path: Path) -> None:
    """To look at one of a program that failed, or was killed, is no failure."""
    saved = str(tmp_path / "recording.json")
    for script, code in (("exit 3", 3), ("kill -9 $$", -9)):
        assert command("record", "--save", saved, "--", "sh", "-c", script).returncode == code
        assert command("record", "--from", saved).returncode == 0


def test_output_that_cannot_be_written() -> None:
    """Nothing is run for that."""
    done = command("record", "--output", "/no/such/place", "--", "echo", "run")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr == "oci-bpf-hook: /no/such/place: No such file or directory\n"
    done = command("record", "--save", "/no/such/place", "--", "echo", "run")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr == "oci-bpf-hook: /no/such/place: No such file or directory\n"


def test_what_was_saved_stays_where_nothing_runs(tmp_path: Path) -> None:
    saved = tmp_path / "recording.json"
    saved.write_text("of last week")
    assert command("record", "--save", str(saved), "--", "/no/such/program").returncode == 127
    assert saved.read_text() == "of last week"
    saved.unlink()
    assert command("record", "--save", str(saved), "--", "/no/such/program").returncode == 127
    assert not saved.exists()
    assert command("record", "--save", str(tmp_path), "--", "true").returncode == USAGE


def test_merged_and_compared(consumer: Consumer, tmp_path: Path) -> None:
    saved, advised = str(tmp_path / "recording.json"), tmp_path / "advised.json"
    record_it = ("record", "--output", "/dev/null", "--save", saved, "--", calls(), "own")
    assert command(*record_it).returncode == 0
    path = consumer.path("socket_filter")
    advised.write_text(command("advise", "--format", "json", path).stdout)
    both = json.loads(command("advise", "--format", "json", "--with", saved, path).stdout)
    assert {"socket_filter", "cgroup_sock"} == {*both["delegate_progs"]}
    assert {reason["source"] for reason in both["reasons"]} == {path, "calls own"}
    done = command("record", "--diff", saved, str(advised))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert "- delegate_progs cgroup_sock: it calls prog_load cgroup_sock" in "\n".join(lines)
    assert [line for line in lines if line.startswith("+ delegate_maps ringbuf: map ")]
    found = json.loads(command("record", "--json", "--diff", saved, str(advised)).stdout)
    jsonschema.validate(found, schema("record-diff"))
    assert "cgroup_sock" in found["first"]["delegate_progs"]
    assert "ringbuf" in found["second"]["delegate_maps"]
    same = command("record", "--diff", saved, saved)
    assert (same.returncode, same.stdout) == (0, "")


def test_standard_input(tmp_path: Path) -> None:
    trace = 'bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH, map_name="a"}, 80) = 3\n'
    saved = tmp_path / "saved"
    done = command("record", "--from-strace", "-", "--save", str(saved), stdin=trace)
    assert (done.returncode, done.stderr) == (0, "")
    assert "strace standard input" in done.stdout
    again = command("record", "--from", "-", stdin=saved.read_text())
    assert again.stdout == done.stdout
    same = command("record", "--diff", str(saved), "-", stdin=saved.read_text())
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    for option, why in (("--from-strace", "there is no call of bpf(2)"), ("--from", "isn't JSON")):
        done = command("record", option, "-", stdin="\x00\xff\n")
        assert done.returncode == USAGE
        assert done.stderr.startswith("oci-bpf-hook: standard input: ")
        assert why in done.stderr


def test_files_without_an_end() -> None:
    for arguments, words in (
        (("record", "--from", "/dev/zero"), "larger than 128 MiB"),
        (("record", "--from-strace", "/dev/zero"), "a line without an end"),
        (("check", "--file", "/dev/zero"), "larger than 64 MiB"),
        (("explain", "--state", "/dev/zero"), "larger than 64 MiB"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert words in done.stderr


def test_files_that_are_none(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    for text, words in (
        ("{", "isn't JSON"),
        ("[]", "it isn't"),
        ('{"recording": 3}', "isn't a recording of version 1"),
        ("[" * 100_000, "isn't JSON"),
    ):
        bad.write_text(text)
        for arguments in (("--from", str(bad)), ("--diff", str(bad), str(bad))):
            done = command("record", *arguments)
            assert (done.returncode, done.stdout) == (USAGE, "")
            assert str(bad) in done.stderr
            assert words in done.stderr or "--diff" in arguments
            assert "Traceback" not in done.stderr
