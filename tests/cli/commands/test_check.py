"""`oci-bpf-hook check`: findings with their places, and the hook's exit codes."""

import json
from pathlib import Path

import pytest

from oci_bpf_hook.errors import (
    BAD_ANNOTATION,
    BAD_POLICY,
    BAD_STATE,
    DONE,
    KERNEL_CANNOT,
    MOUNT_FAILED,
    NO_USER_NAMESPACE,
    REFUSED,
    UNKNOWN_NAME,
    USAGE,
)
from oci_bpf_hook.guard import pinned as guard
from tests.formats.test_containers import COMPOSE, POD, QUADLET, STATES
from tests.support import situation
from tests.support.command import answer, command
from tests.support.policy import in_force
from tests.support.scratch import Scratch

PREFIX = "io.bpffs."
FINE = "delegate_cmds=map_create:prog_load:btf_load"


def annotated(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--annotation", PREFIX + pair)]


def config(**changes: object) -> dict[str, object]:
    """A config.json that asks, with some keys of its linux section changed."""
    linux = {"namespaces": [{"type": "user"}, {"type": "mount"}, {"type": "network"}], **changes}
    return {"annotations": {PREFIX + "delegate_cmds": "map_create"}, "linux": linux}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (annotated(FINE), DONE, "the request: granted by rule everything at /sys/fs/bpf\n"),
        (annotated("delegate_cmd=any"), BAD_ANNOTATION, 'did you mean "io.bpffs.delegate_cmds"?'),
        (annotated("delegate_cmds=prog_lod"), UNKNOWN_NAME, 'did you mean "prog_load"'),
        (annotated("profile=none"), UNKNOWN_NAME, 'the policy has no profile "none"'),
        (["--annotation", "a=b"], DONE, "the request: asks for nothing\n"),
        (annotated("delegate_cmds="), DONE, "the request: asks for nothing\n"),
        (annotated("delegate_cmds/web=any"), BAD_ANNOTATION, "doesn't tell the container's name"),
        (
            [*annotated("delegate_cmds/web=any"), "--attr", "container=web"],
            DONE,
            "granted by rule everything",
        ),
        (
            annotated("delegate_attachs=trace_fsession", "on_unknown=drop"),
            DONE,
            "asks for nothing",
        ),
        (
            ["--kernel", "6.12", *annotated("delegate_cmds=prog_stream_read_by_fd")],
            11,
            "since 6.17",
        ),
        (["--kernel", "6.17", *annotated("delegate_cmds=prog_stream_read_by_fd")], 0, "granted"),
        (["--kernel", "6.8", *annotated(FINE)], KERNEL_CANNOT, "Linux 6.8 can't delegate BPF"),
        (["--file", "/does/not/exist"], USAGE, "/does/not/exist: No such file"),
        (["--policy", "/does/not/exist", *annotated(FINE)], USAGE, "No such file"),
    ],
)
def test_codes(arguments: list[str], code: int, words: str) -> None:
    done = command("check", *arguments)
    assert done.returncode == code
    assert words in done.stdout + done.stderr


def test_by_the_built_in_policy() -> None:
    with in_force(None):
        # Of another kernel it is taken that the guard is in force.
        code, found = answer("check", "--kernel", "6.18", *annotated("profile=xdp"))
        (one,) = found["containers"]
        assert (code, one["rule"], one["confined"]) == (DONE, "own-namespaces", True)
        assert one["granted"]["delegate_progs"] == "socket_filter:xdp"
        code, found = answer("check", *annotated("profile=xdp"), "--attr", "host_network=true")
        (one,) = found["containers"]
        assert (code, one["rule"], one["granted"]) == (REFUSED, "host-network", None)
        levels = [finding["level"] for finding in one["findings"]]
        assert levels == ["problem", "problem", "hint"]


def guarded() -> bool:
    """Whether the guard is in force on this host."""
    try:
        with guard.in_force():
            return True
    except guard.AbsentError:
        return False


@pytest.mark.parametrize("name", ["check", "explain"])
def test_a_confined_grant_takes_the_guard(name: str) -> None:
    with in_force(None):
        code, found = answer(name, *annotated("profile=xdp"))
        (one,) = found["containers"]
        assert (code, one["rule"], one["confined"]) == (
            DONE if guarded() else REFUSED,
            "own-namespaces",
            True,
        )
        if not guarded():
            (problem,) = (each["text"] for each in one["findings"] if each["level"] == "problem")
            # Both ways out.
            assert "oci-bpf-hook guard on" in problem
            assert "confined: false" in problem
        done = command(name, "--kernel", "6.18", *annotated("profile=xdp"))
        assert "\n  confined: the guard limits what its programs call" in done.stdout
        # Without programs there is nothing for it to hold.
        code, found = answer(name, *annotated("delegate_cmds=map_create", "delegate_maps=hash"))
        assert (code, found["containers"][0]["confined"]) == (DONE, True)
        done = command(name, *annotated("delegate_cmds=map_create", "delegate_maps=hash"))
        assert "\n  confined: without prog_load it doesn't need the guard\n" in done.stdout


def test_a_user_can_not_see_the_guard() -> None:
    """Whom the broker would give it is not told that it is refused."""
    with in_force(None):
        done = situation.command("check", *annotated("profile=socket-filter"), user=61998)
    assert done.returncode == DONE, done.stdout + done.stderr
    assert (
        "confined: the guard limits what its programs call, and has to be in force" in done.stdout
    )


@pytest.mark.parametrize("name", ["check", "explain"])
def test_an_unconfined_grant_says_whom_it_trusts(name: str) -> None:
    lists = annotated(FINE, "delegate_maps=hash", "delegate_progs=socket_filter")
    done = command(name, *lists, *annotated("delegate_attachs=cgroup_inet_ingress"))
    assert done.returncode == DONE
    assert "\n  unconfined: whoever matches is trusted with the kernel\n" in done.stdout
    assert "reaches-beyond: delegate_progs: socket_filter: nothing confines" in done.stdout


def test_a_recording(tmp_path: Path) -> None:
    """It has no lists, and is all that the policy allows."""
    asked = annotated("record=x")
    with in_force(None):
        code, found = answer("check", *asked)
    assert (code, found["containers"][0]["granted"]) == (REFUSED, None)
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nrules: [{name: r, allow: {delegate_cmds: [map_create], record: true}}]\n"
    )
    code, found = answer("check", "--policy", policy, *asked)
    assert (code, found["containers"][0]["granted"]) == (DONE, {"delegate_cmds": "map_create"})
    code, found = answer("explain", "--policy", policy, *asked)
    assert code == DONE
    assert "delegate_cmds=map_create" in found["containers"][0]["mount"]


def test_a_bad_policy(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("version: 2\nrules: []\n")
    done = command("check", "--policy", path, *annotated(FINE))
    assert done.returncode == BAD_POLICY
    assert f"oci-bpf-hook: {path}:1:10: " in done.stderr


def test_a_pod(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.replace("map_create,prog_load", "map_create,prog_lod,obj_get"))
    done = command("check", "--file", path)
    assert done.returncode == UNKNOWN_NAME
    # The item itself, and once for all containers.
    assert done.stdout.count(f"{path}:7:40: problem: io.bpffs.delegate_cmds: no command") == 1
    assert "Pod web-0, container probe: refused, exit code 11 (unknown name in an" in done.stdout
    path.write_text(POD)
    code, found = answer("check", "--file", path)
    assert code == DONE
    assert [one["name"] for one in found["containers"]] == [
        "Pod web-0, container first",
        "Pod web-0, container probe",
    ]
    first = found["containers"][0]["findings"][0]
    assert (first["line"], first["column"]) == (7, 29)
    assert first["annotation"] == PREFIX + "delegate_cmds"


def test_annotations_that_no_pod_gets(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  annotations:\n"
        "    io.bpffs.delegate_cmds: any\nspec: {template: {spec: {containers: [{name: a}]}}}\n"
    )
    done = command("check", "--file", path)
    assert done.stdout == (
        f"{path}:6:5: warning: io.bpffs.delegate_cmds is on the Deployment, and its pods don't "
        "get it; put it under the template's metadata.annotations\n"
        "Deployment web, container a: asks for nothing\n"
    )


def test_only_who_asks_is_in_want(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(POD.replace("delegate_cmds:", "profile/probe:").replace("map_create,", ""))
    with in_force(None):
        done = command("check", "--file", path)
    assert done.returncode == UNKNOWN_NAME
    assert "warning: " not in done.stdout
    assert "Pod web-0, container first: asks for nothing\n" in done.stdout


def test_what_a_rule_matches_comes_from_the_file(tmp_path: Path) -> None:
    pod, policy = tmp_path / "pod.yaml", tmp_path / "p.yaml"
    pod.write_text(POD)
    policy.write_text(
        "version: 1\nengine: cri-o\nrules:\n- name: theirs\n"
        "  match: {namespace: monitoring, container: probe, image: registry.example/*}\n"
        "  allow: {confined: false, delegate_cmds: [any]}\n"
    )
    _, found = answer("check", "--file", pod, "--policy", policy)
    assert [(one["code"], one["rule"]) for one in found["containers"]] == [
        (REFUSED, None),
        (DONE, "theirs"),
    ]


def test_compose_and_quadlet(tmp_path: Path) -> None:
    compose = tmp_path / "compose.yaml"
    compose.write_text(COMPOSE)
    done = command("check", "--file", compose)
    assert done.returncode == DONE
    assert f"{compose}:14:9: warning: nothing adds CAP_BPF" not in done.stdout
    assert f"{compose}:17:31: warning: io.bpffs.delegate_maps is a label here" in done.stdout
    unit = tmp_path / "probe.container"
    unit.write_text(QUADLET)
    done = command("check", "--file", unit)
    assert "container probe: granted by rule everything" in done.stdout
    assert "delegate_maps=hash:array" in done.stdout


def test_standard_input() -> None:
    done = command("check", "--file", "-", stdin=POD)
    assert "standard input:7:29: warning: " in done.stdout


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, DONE),
        ({"namespaces": [{"type": "mount"}]}, NO_USER_NAMESPACE),
        ({"maskedPaths": ["/sys/fs"]}, MOUNT_FAILED),
        ({"namespaces": [], "maskedPaths": ["/sys"]}, NO_USER_NAMESPACE),
    ],
)
def test_config_json(changes: dict[str, object], code: int, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(**changes)))
    done = command("check", "--file", path)
    assert done.returncode == code
    if "maskedPaths" in changes:
        assert "is masked by the engine" in done.stdout


def test_the_same_exit_code_as_the_hook() -> None:
    for annotations in (
        {PREFIX + "delegate_cmds": "map_create"},
        {PREFIX + "delegate_cmds": "5"},
        {PREFIX + "delegate_cmds": "nonsense"},
        {PREFIX + "profile": "nonsense"},
        {"a": "b"},
    ):
        with Scratch() as container:
            real = container.hook(annotations).returncode
        pairs = [word for pair in annotations.items() for word in ("--annotation", "=".join(pair))]
        assert command("check", *pairs).returncode == real


@pytest.mark.parametrize("path", sorted(STATES.rglob("*.state.json")), ids=lambda p: str(p)[-50:])
def test_states(path: Path) -> None:
    for option in ("--state", "--file"):
        code, found = answer("check", option, path)
        assert code == DONE
        assert found["containers"][0]["granted"]


def test_no_json_is_a_bad_state(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{\n "annotations": {,}\n}')
    done = command("check", "--file", path)
    assert done.returncode == BAD_STATE
    assert f"{path}:2:18: this isn't JSON: " in done.stderr


def test_strict() -> None:
    doubtful = annotated("delegate_cmds=map_create:obj_get", "delegate_maps=hash")
    assert command("check", *doubtful).returncode == DONE
    assert command("check", "--strict", *doubtful).returncode == REFUSED
    fine = annotated("delegate_cmds=map_create", "delegate_maps=hash")
    assert command("check", "--strict", *fine).returncode == DONE


def test_a_kernel_without_tokens(tmp_path: Path) -> None:
    """The names of a kernel before 6.9: the hook would end there, and so does the trial."""
    header = tmp_path / "bpf.h"
    own = Path("/usr/include/linux/bpf.h").read_text()
    header.write_text(own.replace("BPF_TOKEN_CREATE", "BPF_SOMETHING_ELSE"))
    with in_force(None):
        code, found = answer("check", "--header", header, *annotated("delegate_cmds=map_create"))
        assert code == KERNEL_CANNOT
        (one,) = found["containers"]
        assert (one["code"], one["granted"]) == (KERNEL_CANNOT, None)
        (said,) = (found["text"] for found in one["findings"] if found["level"] == "problem")
        assert said.startswith(f"{header} can't delegate BPF; that takes Linux 6.9 ")
        # What the hook would find before that is the code; whoever asks for nothing gets nothing.
        code, found = answer("check", "--header", header, *annotated("delegate_cmds=prog_lod"))
        assert code == UNKNOWN_NAME
        assert answer("check", "--header", header, *annotated("delegate_cmds="))[0] == DONE
