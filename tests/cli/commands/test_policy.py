"""`oci-bpf-hook policy` and `lint`, as people call them."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.errors import BAD_POLICY, REFUSED, UNKNOWN_NAME, USAGE
from oci_bpf_hook.resources import schema
from tests.support.command import answer, command
from tests.support.places import ROOT
from tests.support.policy import POLICY, in_force

SHIPPED = str(ROOT / "oci_bpf_hook" / "policy.yaml")
SCHEMA = json.loads((ROOT / "schema" / "policy-test.schema.json").read_text())
HOSTILE = ROOT / "tests" / "data" / "states" / "cri-o-1.37-crun"


def as_json(name: str, *arguments: str) -> dict[str, Any]:
    done = command("policy", *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(found, schema(name))
    return found


def test_check(tmp_path: Path) -> None:
    done = command("policy", "check", SHIPPED)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is in order: 3 rules" in done.stdout
    # What is doubtful about a profile is what it is for.
    assert "profile tracing: reaches-beyond: delegate_progs: tracing reads" in done.stdout
    assert "profile xdp:" not in done.stdout
    # A rule is made of profiles there; one with lists of its own is looked at as a whole.
    assert ": rule " not in done.stdout
    own = tmp_path / "o.yaml"
    own.write_text(
        "version: 1\nprofiles: {a: {delegate_cmds: [map_create, prog_load, btf_load]}}\nrules:\n"
        "- name: own\n  allow: {profiles: [a], delegate_maps: [hash], delegate_progs: [kprobe]}\n"
        "- {name: other, allow: {profiles: [a]}}\n"
    )
    found = command("policy", "check", str(own)).stdout
    assert "rule own: progs-without-attachs: " in found
    assert "rule own: reaches-beyond: " in found
    assert "rule own: map_create-without-delegate_maps" not in found
    assert "profile a: map_create-without-delegate_maps: " in found
    assert "rule other" not in found
    listed = as_json("policy-check", "check", str(own))
    assert listed["rules"] == ["own", "other"]
    assert ("rule own", "reaches-beyond") in {
        (one["about"], one["code"]) for one in listed["findings"]
    }
    bad = tmp_path / "p.yaml"
    bad.write_text("version: 1\nrules: []\nengin: podman\n")
    done = command("policy", "check", str(bad))
    assert done.returncode == BAD_POLICY
    assert f'{bad}:3:1: "engin" isn\'t a key here; did you mean "engine"?' in done.stderr
    doubtful = tmp_path / "q.yaml"
    doubtful.write_text("version: 1\nrules:\n- {name: a, match: {pod: b}, allow: {}}\n")
    done = command("policy", "check", str(doubtful))
    assert done.returncode == 0
    assert f"{doubtful}:3:20: warning: whoever asks can set pod" in done.stdout
    (warning,) = as_json("policy-check", "check", str(doubtful))["findings"]
    assert (warning["line"], warning["column"]) == (3, 20)


def test_check_of_rules_that_trust(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "version: 1\nrules:\n"
        "- {name: held, match: {user: daemon}, allow: {delegate_cmds: [map_create],"
        " delegate_maps: [hash]}}\n"
        "- {name: trusted, match: {user: daemon}, allow: {confined: false,"
        " delegate_cmds: [prog_load, btf_load], delegate_progs: [socket_filter, kprobe],"
        " delegate_attachs: [cgroup_inet_ingress]}}\n"
    )
    found = command("policy", "check", str(path)).stdout
    assert f"{path} is in order: 2 rules, of which 1 unconfined\n" in found
    # Once, and where it stands.
    assert found.count("trusted with the kernel") == 1
    assert "reaches-beyond" not in found
    listed = as_json("policy-check", "check", str(path))
    assert (listed["rules"], listed["unconfined"]) == (["held", "trusted"], ["trusted"])


def test_check_of_the_file_in_force() -> None:
    """Who could have written it is a part of whether it is in order."""
    assert command("policy", "check").returncode == 0
    mode = POLICY.stat().st_mode
    POLICY.chmod(0o666)
    try:
        for more in ((), (str(POLICY),), (f"{POLICY.parent}/../{POLICY.parent.name}/policy.yaml",)):
            done = command("policy", "check", *more)
            assert (done.returncode, done.stdout) == (BAD_POLICY, "")
            assert f"chmod go-w {POLICY}" in done.stderr
    finally:
        POLICY.chmod(mode)
    with in_force(None):
        done = command("policy", "check")
    assert done.returncode == USAGE
    assert "doesn't exist, and so the built-in policy holds" in done.stderr


def test_show() -> None:
    done = command("policy", "show")
    assert done.stdout == f"# {POLICY}\n{POLICY.read_text()}"
    with in_force(None):
        done = command("policy", "show")
        shown = as_json("policy-show", "show")
    assert done.stdout.splitlines()[0] == f"# built in; {POLICY} doesn't exist"
    assert Path(SHIPPED).read_text() in done.stdout
    assert shown["file"] is None
    jsonschema.validate(shown["policy"], schema("policy"))
    assert as_json("policy-show", "show")["file"] == str(POLICY)


def try_it(*arguments: str) -> tuple[int, dict[str, object]]:
    done = command("policy", "test", "--policy", SHIPPED, "--json", *arguments)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, SCHEMA)
    assert isinstance(answer, dict)
    return done.returncode, answer


def test_test() -> None:
    request = ("--annotation", "io.bpffs.profile=xdp")
    code, answer = try_it(*request)
    assert (code, answer["rule"], answer["confined"]) == (0, "own-namespaces", True)
    assert "\nconfined\n" in command("policy", "test", "--policy", SHIPPED, *request).stdout
    done = command("policy", "test", "--annotation", "io.bpffs.delegate_progs=xdp")
    assert "\nunconfined: trusted with the kernel\n" in done.stdout
    code, answer = try_it(*request, "--attr", "host_network=true")
    assert (code, answer["rule"], answer["granted"]) == (REFUSED, "host-network", None)
    assert any("xdp" in str(problem) for problem in answer["problems"])  # type: ignore[attr-defined]


def test_a_request_for_nothing_is_decided_too() -> None:
    """The hook starts such a container as it is, but here the question is which rule it meets."""
    request = ("--annotation", "io.bpffs.delegate_maps=hash,!hash")
    code, answer = try_it(*request)
    assert (code, answer["rule"], answer["granted"]) == (0, "own-namespaces", {})
    code, answer = try_it(*request, "--attr", "host_network=true")
    assert (code, answer["rule"], answer["granted"]) == (0, "host-network", {})
    done = command("policy", "test", "--annotation", "io.bpffs.delegate_maps=hsh")
    assert (done.returncode, done.stdout) == (UNKNOWN_NAME, "")


def test_annotations_for_one_container() -> None:
    """Of KEY/NAME the NAME is what --attr says."""
    request = ("--annotation", "io.bpffs.delegate_progs/web=xdp")
    code, answer = try_it(*request, "--attr", "container=web")
    assert (code, answer["granted"]) == (0, {"delegate_progs": "xdp"})
    done = command("policy", "test", *request, "--attr", "container=db")
    assert (done.returncode, "nothing is asked for" in done.stderr) == (USAGE, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--annotation", "io.bpffs.profile=tracing"),
        ("--annotation", "io.bpffs.delegate_cmds=any", "--attr", "namespace=monitoring"),
        ("--annotation", "io.bpffs.delegate_progs=kprobe", "--attr", "container=web"),
        ("--annotation", "io.bpffs.profile=xdp", "--attr", "rootless=true", "--attr", "user=1000"),
        ("--annotation", "io.bpffs.profile=xdp", "--attr", "host_network=true"),
    ],
    ids=" ".join,
)
def test_what_a_refusal_says_to_add(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The rule that stands there, pasted as it is, and the request is allowed."""
    code, answer = try_it(*arguments)
    assert code == REFUSED
    problems: Any = answer["problems"]
    head, dash, rule = problems[-1].partition("- {name")
    assert "/etc/oci-bpf-hook/policy.yaml" in head
    policy = tmp_path / "p.yaml"
    shipped = Path(SHIPPED).read_text()
    assert shipped.count("rules:\n") == 1
    policy.write_text(shipped.replace("rules:\n", f"rules:\n  {dash}{rule}\n"))
    done = command("policy", "test", "--policy", str(policy), *arguments)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "rule: NAME")


def test_users_and_groups_by_name(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(
        "version: 1\nrules:\n- name: theirs\n  match: {user: daemon, group: [bin, 4711]}\n"
        "  deny: because\n"
    )
    annotation = "io.bpffs.delegate_cmds=prog_load"
    request = ("policy", "test", "--policy", str(policy), "--annotation", annotation)
    for groups in (("bin",), ("root", "bin"), ("4711", "root")):
        given = ["--attr=user=daemon", *(f"--attr=group={group}" for group in groups)]
        assert 'rule "theirs" denies' in command(*request, *given).stdout
    assert "no rule of the policy" in command(*request, "--attr", "user=daemon").stdout


def test_test_says_who_says_so(tmp_path: Path) -> None:
    state = str(HOSTILE / "createRuntime.hostile-pod.state.json")
    policy = tmp_path / "p.yaml"
    policy.write_text(
        "version: 1\nrules:\n- name: theirs\n  match: {namespace: monitoring}\n"
        "  allow: {delegate_cmds: [any], delegate_maps: [any]}\n"
    )
    arguments = ("policy", "test", "--policy", str(policy), "--state", state)
    done = command(*arguments, "--engine", "cri-o")
    assert done.returncode == 0, done.stdout
    assert "namespace: monitoring (set by the engine)" in done.stdout
    assert "SPOOF" not in done.stdout
    done = command(*arguments, "--engine", "podman")
    assert done.returncode == REFUSED
    assert "no rule of the policy is for this container" in done.stdout


def test_lint() -> None:
    done = command("lint", "--annotation", "io.bpffs.delegate_cmds=obj_get")
    assert done.returncode == 0
    assert done.stdout.startswith("command-without-token: delegate_cmds: ")
    done = command("lint", "--strict", "--annotation", "io.bpffs.delegate_cmds=obj_get")
    assert done.returncode == REFUSED
    code, findings = answer("lint", "--annotation", "io.bpffs.delegate_cmds=obj_get")
    assert (code, findings[0]["option"]) == (0, "delegate_cmds")
    done = command("lint", "--strict", "--annotation", "io.bpffs.profile=none-such")
    assert 'the policy has no profile "none-such"' in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("policy", "check", "/does/not/exist"),
        ("policy", "test", "--annotation", "x"),
        ("policy", "test", "--annotation", "a=b"),
        ("policy", "test", "--annotation", "io.bpffs.profile=xdp", "--attr", "host_network=1"),
        ("policy", "test", "--annotation", "io.bpffs.profile=xdp", "--attr", "user=no-such-user"),
        ("policy", "test", "--annotation", "io.bpffs.profile=xdp", "--attr", "engine=podman"),
        ("policy", "test", "--annotation", "io.bpffs.profile=xdp", "--attr", "colour=red"),
        ("policy", "test", "--state", "/does/not/exist"),
    ],
    ids=" ".join,
)
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    done = command(*arguments)
    assert done.returncode == USAGE
    assert done.stderr.startswith("oci-bpf-hook: ")
    assert done.stderr.count("\n") == 1
