"""`oci-bpf-hook explain`: real states replayed, and what is said of a request."""

import json
from pathlib import Path

import pytest

from oci_bpf_hook.errors import DONE, NO_USER_NAMESPACE, REFUSED, USAGE
from tests.formats.test_containers import STATES
from tests.support.command import answer, command
from tests.support.policy import in_force
from tests.support.scratch import Scratch, io

REQUEST = ("--annotation", "io.bpffs.delegate_cmds=map_create:prog_load")
REAL = sorted(STATES.rglob("*.state.json"))


@pytest.mark.parametrize("path", REAL, ids=lambda path: str(path)[-60:])
def test_replay(path: Path) -> None:
    state = json.loads(path.read_text())
    config = path.with_name(path.name.replace(".state.", ".config."))
    inside, rootless = state["pid"] in (0, 1), "rootless" in str(path)
    if not config.exists():
        # podman 6's at createContainer, which the hook can't read there.
        config = path.with_name("createRuntime.config.json")
    code, found = answer("explain", "--state", path, "--config", config)
    (one,) = found["containers"]
    assert one["stage"] == ("createContainer" if inside else "createRuntime")
    if rootless:
        # It shares podman's user namespace, as only podman's user tells.
        assert (code, one["steps"], one["mount"]) == (NO_USER_NAMESPACE, [], None)
        rootless_user = ("--attr", "rootless=true", "--attr", "user=1001")
        code, found = answer("explain", "--state", path, "--config", config, *rootless_user)
        (one,) = found["containers"]
    assert code == DONE
    assert one["rule"] == "everything"
    assert one["authority"] == ("broker" if inside or rootless else "direct")
    halves = {step["half"] for step in one["steps"]}
    assert halves == (
        {"container", "broker", "broker's child"} if inside or rootless else {"host", "container"}
    )
    calls = [step["call"] for step in one["steps"]]
    given = json.loads(config.read_text())
    root = given["root"]["path"]
    assert f'openat2("{root}", RESOLVE_NO_MAGICLINKS)' in calls or (
        f'openat2("{state["bundle"]}/{root}", RESOLVE_NO_MAGICLINKS)' in calls
    )
    if rootless:
        return
    first = given["linux"]["uidMappings"][0]["hostID"]
    shown = state["annotations"]["io.bpffs.delegate_cmds"].replace(",", ":")
    assert f"uid={first},gid={first},delegate_cmds={shown}" in one["mount"]
    # It says the same without the bundle, but for what only that tells.
    _, without = answer("explain", "--state", path)
    assert "uid=UID,gid=GID" in without["containers"][0]["mount"]


def test_a_live_container() -> None:
    annotations = io(delegate_cmds="map_create:prog_load")
    with Scratch() as container:
        mappings = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        linux = {
            "uidMappings": mappings,
            "gidMappings": mappings,
            "namespaces": [{"type": "user"}, {"type": "mount"}],
        }
        container.config(annotations, linux=linux)
        state = json.dumps(container.state(annotations))
        done = command("explain", "--json", "--state", "-", stdin=state)
        said = json.loads(done.stdout)["containers"][0]
        assert f'openat2("{container.root}", RESOLVE_NO_MAGICLINKS)' in [
            step["call"] for step in said["steps"]
        ]
        container.assert_untouched()
        assert container.hook(annotations).returncode == DONE
        shown = container.enter("mount", "-t", "bpf").stdout.replace(str(container.root), "")
        assert shown == said["mount"] + "\n"


def test_who_says_so(tmp_path: Path) -> None:
    state = STATES / "cri-o-1.37-crun" / "createRuntime.hostile-pod.state.json"
    for engine, namespace, origin in (
        ("cri-o", "monitoring", "engine"),
        ("podman", None, "requester"),
    ):
        _, found = answer("explain", "--engine", engine, "--state", state)
        attributes = found["containers"][0]["attributes"]
        assert attributes["namespace"] == {
            "value": namespace,
            "set_by": origin,
            "assumed": False,
        }
        assert attributes["engine"]["set_by"] == "administrator"
        assert attributes["host_cgroup"] == {"value": False, "set_by": "kernel", "assumed": True}
    _, found = answer("explain", *REQUEST, "--attr", "user=1000")
    user = found["containers"][0]["attributes"]["user"]
    assert user == {"value": 1000, "set_by": "kernel", "assumed": False}


def test_as_text() -> None:
    done = command("explain", *REQUEST, "--annotation", "io.bpffs.mode=0700")
    assert done.returncode == DONE
    for words in (
        "  io.bpffs.mode=0700\n",
        "rule everything grants\n",
        "  delegate_cmds: 0x21 map_create:prog_load\n",
        '   8 host      fsconfig(FSCONFIG_SET_STRING, "source", "bpf")\n',
        "  14 container move_mount(",
        "mode=700,delegate_cmds=map_create:prog_load)\n",
        "  user          0 (assumed)      kernel\n",
    ):
        assert words in done.stdout


def test_refused() -> None:
    with in_force(None):
        done = command("explain", "--annotation", "io.bpffs.delegate_progs=kprobe")
    assert done.returncode == REFUSED
    assert "rule own-namespaces refuses\n" in done.stdout
    assert "exit code 12: refused by the policy; the container isn't started\n" in done.stdout
    assert "fsopen" not in done.stdout


def test_nothing() -> None:
    assert command("explain", "--annotation", "a=b").stdout == "the request\n  asks for nothing\n"
    request = ("delegate_attachs=trace_fsession", "on_unknown=drop")
    pairs = [word for text in request for word in ("--annotation", f"io.bpffs.{text}")]
    done = command("explain", "--kernel", "6.9", *pairs)
    assert "nothing is left of what was asked for\n" in done.stdout


def test_a_pod_has_a_plan_for_each_container(tmp_path: Path) -> None:
    path = tmp_path / "pod.json"
    containers = [{"name": "a"}, {"name": "b"}]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "annotations": {"io.bpffs.profile/a": "x"}},
        "spec": {"containers": containers},
    }
    pod["metadata"]["annotations"] = {"io.bpffs.delegate_cmds/a": "prog_load"}  # type: ignore[index]
    path.write_text(json.dumps(pod))
    _, found = answer("explain", "--file", path)
    first, second = found["containers"]
    assert "delegate_cmds=prog_load" in first["mount"]
    assert (second["mount"], second["requested"]) == (None, None)
    # As in check, each with its place.
    said = command("explain", "--file", path).stdout
    assert f"{path}:1:" in said
    assert "Pod p, container b\n  asks for nothing\n" in said


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--state", "/does/not/exist"),
        ("--state", str(REAL[0]), "--config", "/does/not/exist"),
        (*REQUEST, "--state", str(REAL[0])),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    assert command("explain", *arguments).returncode == USAGE
