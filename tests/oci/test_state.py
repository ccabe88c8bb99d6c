"""state.py: the states that engines really hand to a hook, and what is no state."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.delegation.annotations import asked, parse
from oci_bpf_hook.errors import BAD_STATE, HookError
from oci_bpf_hook.oci.state import STATE_MAX, Rootfs, State, annotations_of, check, find_rootfs
from oci_bpf_hook.text.strict_json import load_json
from tests.support.captured import STATES, Bundle, raw
from tests.support.json_values import JSON_VALUES
from tests.support.places import ROOT

CAPTURED = sorted(STATES.glob("*/*.state.json"))
CREATE_RUNTIME = [path for path in CAPTURED if path.name.startswith("createRuntime.")]
CREATE_CONTAINER = [path for path in CAPTURED if path.name.startswith("createContainer.")]


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.name.removesuffix('.state.json')}"


by_create_runtime = pytest.mark.parametrize("path", CREATE_RUNTIME, ids=label)


# ---- captured states


def test_there_are_states_of_every_engine() -> None:
    engines = {path.parent.name.split("-")[0] for path in CREATE_RUNTIME}
    assert engines == {"podman", "cri", "containerd", "docker"}
    assert {"crun", "runc"} <= {word for path in CAPTURED for word in path.parent.name.split("-")}
    assert len(CREATE_CONTAINER) >= 5


@by_create_runtime
def test_a_state_at_create_runtime_is_understood(path: Path) -> None:
    decoded = load_json(path.read_bytes())
    state = check(decoded)
    wanted = raw(path)
    assert state == State(
        id=wanted["id"],
        pid=wanted["pid"],
        bundle=wanted["bundle"],
        status=wanted["status"],
        root=wanted.get("root"),
        annotations=wanted["annotations"],
    )
    assert annotations_of(decoded) == state.annotations
    assert asked(state.annotations)
    request = parse(state.annotations, lambda: None)
    assert request is not None
    assert request.lists["delegate_cmds"][0] in ("map_create", "any")


@by_create_runtime
def test_the_root_is_the_one_in_config_json(path: Path, tmp_path: Path) -> None:
    bundle = Bundle(path, tmp_path)
    root = bundle.config["root"]["path"]
    found = bundle.find()
    assert found.path == (root if root.startswith("/") else f"{bundle.directory}/{root}")
    assert found.masked == tuple(bundle.config["linux"].get("maskedPaths", ()))


@by_create_runtime
def test_without_config_json_crun_says_it_itself(path: Path, tmp_path: Path) -> None:
    bundle = Bundle(path, tmp_path)
    wanted = bundle.find().path
    bundle.file.unlink()
    if "root" in bundle.state:
        assert bundle.find() == Rootfs(
            path=wanted, masked=(), remounted=(), version=None, mounted=(), preload=None
        )
    else:
        bundle.refused("config.json: No such file or directory")


@pytest.mark.parametrize("path", CREATE_CONTAINER, ids=label)
def test_a_state_at_create_container_is_understood(path: Path) -> None:
    decoded = load_json(path.read_bytes())
    assert asked(annotations_of(decoded))
    # runc says 1 and crun 0: the hook is in the container already.
    assert raw(path)["pid"] in (0, 1)
    assert check(decoded).pid is None


@pytest.mark.parametrize("path", CREATE_CONTAINER, ids=label)
def test_the_root_at_create_container(path: Path, tmp_path: Path) -> None:
    """Where config.json may be unreadable, and runc has no `root` but leaves us in it."""
    state = check(load_json(path.read_bytes()))
    context = json.loads(path.with_name("createContainer.context.json").read_text())
    runc = "runc" in path.parent.name
    assert (state.root is None) == runc
    found = find_rootfs(state, cwd=context["cwd"], crun=str(tmp_path))
    assert found == Rootfs(
        path=context["cwd"] if runc else str(state.root),
        masked=(),
        remounted=(),
        version=None,
        mounted=(),
        preload=None,
    )


def test_a_hostile_pod_cant_change_whose_container_it_is() -> None:
    path = STATES / "cri-o-1.37-crun" / "createRuntime.hostile-pod.state.json"
    annotations = check(load_json(path.read_bytes())).annotations
    assert "SPOOF" in annotations.values()
    key = "io.bpffs.delegate_cmds"
    assert parse({f"{key}/SPOOF": "any"} | annotations, lambda: None) == parse(
        annotations, lambda: None
    )
    named = parse(annotations | {f"{key}/probe": "any"}, lambda: None)
    assert named is not None
    assert named.lists["delegate_cmds"] == ("any",)


# ---- the state itself


GOOD: Mapping[str, Any] = {
    "ociVersion": "1.0",
    "id": "c1",
    "pid": 4711,
    "bundle": "/b",
    "status": "created",
    "annotations": {"io.bpffs.delegate_cmds": "any"},
}


def wrong(state: object) -> str:
    with pytest.raises(HookError) as caught:
        check(state)
    assert caught.value.code == BAD_STATE
    said = str(caught.value)
    assert said.startswith("the state on stdin ")
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 1000
    return said


def test_the_least_that_a_state_has() -> None:
    assert check(dict(GOOD)).root is None
    for name in ("root", "annotations"):
        assert check({**GOOD, name: None})
    assert check({key: value for key, value in GOOD.items() if key != "annotations"})
    assert annotations_of({}) == {}


@pytest.mark.parametrize("state", [None, [], "x", 1, 1.5, True, [dict(GOOD)]])
def test_what_is_no_object(state: object) -> None:
    assert "isn't a JSON object" in wrong(state)
    with pytest.raises(HookError):
        annotations_of(state)


@pytest.mark.parametrize("value", [[], "x", 1, {"a": 1}, {"a": None}, {"a": "b", "c": ["d"]}])
def test_annotations_that_are_no_strings(value: object) -> None:
    assert "annotations that aren't strings" in wrong({**GOOD, "annotations": value})


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", 1, ".", "..", "...", "a/b", "../x", "a\0", "a\n", "\u00fc", "\ud800", "a b"),
        *("a" * 1025, "\x1b[2J" * 100_000, ["c1"], {}),
    ],
)
def test_what_is_no_id(value: object) -> None:
    assert "no usable id" in wrong({**GOOD, "id": value})


@pytest.mark.parametrize("value", ["a", "-", "a.b", "..a", "A_b+c-d.9", "0" * 64, "a" * 1024])
def test_ids(value: str) -> None:
    assert check({**GOOD, "id": value}).id == value


@pytest.mark.parametrize("value", [None, "4711", 4711.0, True, [4711]])
def test_no_pid(value: object) -> None:
    assert "has no pid" in wrong({**GOOD, "pid": value})


@pytest.mark.parametrize("value", [-1, -(10**4000), 1 << 31, 1 << 64, 10**4000])
def test_a_number_that_is_no_pid(value: int) -> None:
    assert "no usable pid" in wrong({**GOOD, "pid": value})


@pytest.mark.parametrize("value", [2, 4711, (1 << 31) - 1])
def test_pids(value: int) -> None:
    assert check({**GOOD, "pid": value}).pid == value


@pytest.mark.parametrize("value", [0, 1])
def test_the_containers_own_pid(value: int) -> None:
    assert check({**GOOD, "pid": value}).pid is None


@pytest.mark.parametrize(
    "value", [None, "running", "stopped", "", "CREATED", ["created"], "\n" * 99]
)
def test_another_status(value: object) -> None:
    assert "register this hook at createRuntime" in wrong({**GOOD, "status": value})


@pytest.mark.parametrize("value", [None, "", "b", "./b", "/b\0", "/\ud800", 1, ["/b"]])
def test_what_is_no_bundle(value: object) -> None:
    assert "has no bundle with an absolute path" in wrong({**GOOD, "bundle": value})


@pytest.mark.parametrize("value", ["", "/r\0", "\udfff", 1, False, ["/r"]])
def test_what_is_no_root(value: object) -> None:
    assert "has a root that isn't a path" in wrong({**GOOD, "root": value})


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD, "root"]), JSON_VALUES))
def test_any_other_state_is_a_bad_state(changes: dict[str, object]) -> None:
    try:
        state = check({**GOOD, **changes})
    except HookError as error:
        said, code = str(error), error.code
        assert code == BAD_STATE
        assert said.isascii()
        assert said.isprintable()
    else:
        assert state.pid is None or 1 < state.pid < 1 << 31
        assert "/" not in state.id
        assert state.bundle.startswith("/")


# ---- standard input


_READ = """
import sys
from oci_bpf_hook.errors import HookError
from oci_bpf_hook.oci.state import read_stdin
try:
    print(len(read_stdin()))
except HookError as error:
    print(error.code, error)
"""


def read(data: bytes, *, prefix: Sequence[str] = ()) -> str:
    """What read_stdin() makes of it; the writer must be able to write to the end."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", _READ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin
    assert process.stdout
    if not prefix:
        # Not communicate(), which passes over the broken pipe that crun fails a hook for.
        process.stdin.write(data)
    process.stdin.close()
    with process.stdout:
        said = process.stdout.read().decode()
    assert process.wait() == 0
    return said


def test_stdin_is_read_to_its_end() -> None:
    assert STATE_MAX == 1 << 20
    assert read(b"") == "0\n"
    assert read(b"x" * STATE_MAX) == f"{STATE_MAX}\n"
    size = 5 * STATE_MAX + 1
    assert read(b"x" * size) == (
        f"17 the state on stdin has {size} bytes; at most {STATE_MAX} are read\n"
    )


def test_stdin_that_is_closed() -> None:
    said = read(b"", prefix=["sh", "-c", 'exec "$@" <&-', "sh"])
    assert said.startswith("17 the state on stdin can't be read: ")
