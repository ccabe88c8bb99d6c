"""state.py: the states that engines really hand to a hook, and the bundles behind them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.delegation.annotations import asked, parse
from oci_bpf_hook.errors import BAD_STATE, HookError
from oci_bpf_hook.oci.state import STATE_MAX, Rootfs, State, annotations_of, check, find_rootfs
from oci_bpf_hook.text.strict_json import load_json
from tests.support.json_values import JSON_VALUES
from tests.support.places import ROOT
from tests.support.scratch import install

STATES = ROOT / "tests" / "data" / "states"
CAPTURED = sorted(STATES.glob("*/*.state.json"))
CREATE_RUNTIME = [path for path in CAPTURED if path.name.startswith("createRuntime.")]
CREATE_CONTAINER = [path for path in CAPTURED if path.name.startswith("createContainer.")]
# One of each runtime and engine that differ in what they say of the root filesystem.
CRUN = STATES / "podman-4.3.1-rootful-crun-1.8.1" / "createRuntime.state.json"
RUNC = STATES / "podman-4.3.1-rootful-runc-1.1.5" / "createRuntime.state.json"
RELATIVE = STATES / "containerd-2.4-nri-crun" / "createRuntime.state.json"


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.name.removesuffix('.state.json')}"


by_create_runtime = pytest.mark.parametrize("path", CREATE_RUNTIME, ids=label)


def config_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        path.with_name(path.name.replace(".state.", ".config.")).read_text()
    )
    return found


def raw(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


class Bundle:
    """A captured state whose bundle is a directory of ours, with the captured config.json in it."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.crun = directory / "crun"
        self.crun.mkdir()
        self.directory = directory / "bundle"
        self.directory.mkdir()
        self.file = self.directory / "config.json"
        self.config = config_of(path)
        self.state = raw(path) | {"bundle": str(self.directory)}
        self.write()

    def write(self) -> None:
        self.file.write_text(json.dumps(self.config))

    def checked(self) -> State:
        return check(load_json(json.dumps(self.state).encode()))

    def find(self) -> Rootfs:
        return find_rootfs(self.checked(), crun=str(self.crun))

    def refused(self, says: str = "") -> None:
        with pytest.raises(HookError) as caught:
            self.find()
        assert caught.value.code == BAD_STATE
        assert "the container's root filesystem can't be found: " in str(caught.value)
        assert says in str(caught.value)

    def copy_for_crun(self) -> Path:
        """The copy of config.json that crun keeps in its own directory."""
        copy = self.crun / str(self.state["id"])
        copy.mkdir()
        (copy / "config.json").write_text(json.dumps(self.config))
        return copy / "config.json"


@pytest.fixture
def crun(tmp_path: Path) -> Bundle:
    return Bundle(CRUN, tmp_path)


@pytest.fixture
def runc(tmp_path: Path) -> Bundle:
    return Bundle(RUNC, tmp_path)


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
        assert bundle.find() == Rootfs(path=wanted, masked=(), remounted=(), version=None)
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
        path=context["cwd"] if runc else str(state.root), masked=(), remounted=(), version=None
    )


def test_the_runtimes_directory_is_no_root_at_create_runtime(runc: Bundle, tmp_path: Path) -> None:
    runc.file.unlink()
    with pytest.raises(HookError, match="can't be found"):
        find_rootfs(runc.checked(), cwd="/var/lib", crun=str(tmp_path))
    runc.state["pid"] = 1
    with pytest.raises(HookError, match="can't be found"):
        find_rootfs(runc.checked(), cwd="/", crun=str(tmp_path))


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


# ---- config.json that is no help


def unreadable(bundle: Bundle) -> str:
    bundle.file.unlink()
    bundle.file.mkdir()
    return "not a regular file"


def a_pipe(bundle: Bundle) -> str:
    # To open it without a writer must not hang.
    bundle.file.unlink()
    os.mkfifo(bundle.file)
    return "not a regular file"


def a_link(bundle: Bundle) -> str:
    bundle.file.rename(bundle.directory / "other.json")
    bundle.file.symlink_to("other.json")
    return "Too many levels of symbolic links"


def missing(bundle: Bundle) -> str:
    bundle.file.unlink()
    return "No such file or directory"


def no_bundle(bundle: Bundle) -> str:
    shutil.rmtree(bundle.directory)
    return "No such file or directory"


def no_json(bundle: Bundle) -> str:
    bundle.file.write_text(bundle.file.read_text()[:-1])
    return "config.json: "


def not_utf_8(bundle: Bundle) -> str:
    bundle.file.write_bytes(b'{"root": "\xff"}')
    return "config.json: "


def no_object(bundle: Bundle) -> str:
    bundle.file.write_text(f"[{bundle.file.read_text()}]")
    return "isn't a JSON object"


def huge(bundle: Bundle) -> str:
    bundle.config["padding"] = "x" * (4 << 20)
    bundle.write()
    return "too large"


def endless(bundle: Bundle) -> str:
    with open(bundle.file, "w") as file:
        file.truncate(1 << 40)
    return "too large"


def somebody_elses(bundle: Bundle) -> str:
    os.chown(bundle.file, 1000, 1000)
    return "not root's"


def other_annotations(bundle: Bundle) -> str:
    bundle.config["annotations"]["io.bpffs.delegate_cmds"] = "any"
    bundle.write()
    return "has other annotations than the state"


def fewer_annotations(bundle: Bundle) -> str:
    del bundle.config["annotations"]["io.container.manager"]
    bundle.write()
    return "has other annotations than the state"


def no_annotations(bundle: Bundle) -> str:
    del bundle.config["annotations"]
    bundle.write()
    return "has other annotations than the state"


def no_root(bundle: Bundle) -> str:
    del bundle.config["root"]
    bundle.write()
    return "has no root.path"


def null_root(bundle: Bundle) -> str:
    bundle.config["root"]["path"] = None
    bundle.write()
    return "has no root.path"


def nul_in_root(bundle: Bundle) -> str:
    bundle.config["root"]["path"] = "/a\0b"
    bundle.write()
    return "has no root.path"


def surrogate_in_root(bundle: Bundle) -> str:
    bundle.config["root"]["path"] = "/a\ud800b"
    bundle.write()
    return "has no root.path"


BREAK = [
    *(unreadable, a_pipe, a_link, missing, no_bundle, no_json, not_utf_8, no_object, huge),
    *(endless, somebody_elses, other_annotations, fewer_annotations, no_annotations, no_root),
    *(null_root, nul_in_root, surrogate_in_root),
]
by_break = pytest.mark.parametrize("damage", BREAK, ids=lambda damage: damage.__name__)


@by_break
def test_runc_without_a_believable_config_json_is_refused(
    runc: Bundle, damage: Callable[[Bundle], str]
) -> None:
    runc.refused(damage(runc))


@by_break
def test_crun_without_a_believable_config_json_is_asked_itself(
    crun: Bundle, damage: Callable[[Bundle], str]
) -> None:
    damage(crun)
    assert crun.find() == Rootfs(path=crun.state["root"], masked=(), remounted=(), version=None)


@by_break
def test_without_cruns_word_there_is_its_copy(
    crun: Bundle, damage: Callable[[Bundle], str]
) -> None:
    wanted = crun.find()
    crun.copy_for_crun()
    del crun.state["root"]
    damage(crun)
    assert crun.find() == wanted


@by_break
def test_the_copy_must_be_believable_too(crun: Bundle, damage: Callable[[Bundle], str]) -> None:
    del crun.state["root"]
    copy = crun.copy_for_crun()
    crun.file.unlink()
    crun.file, crun.directory = copy, copy.parent
    damage(crun)
    crun.refused("config.json: No such file or directory")


def test_a_config_of_four_mebibytes_is_read(runc: Bundle) -> None:
    wanted = runc.find()
    with open(runc.file, "a") as file:
        file.write(" " * ((4 << 20) - runc.file.stat().st_size))
    assert runc.find() == wanted
    with open(runc.file, "a") as file:
        file.write(" ")
    runc.refused("too large")


def test_an_annotation_more_in_the_config_does_no_harm(runc: Bundle) -> None:
    # crun leaves some out of the state.
    wanted = runc.find()
    runc.config["annotations"]["org.example"] = "1"
    runc.write()
    assert runc.find() == wanted


def test_no_annotations_at_all(runc: Bundle) -> None:
    """As Docker has it on runc, where a CDI device runs the hook."""
    wanted = runc.find()
    del runc.state["annotations"], runc.config["annotations"]
    runc.write()
    assert runc.find() == wanted
    runc.config["annotations"] = None
    runc.write()
    assert runc.find() == wanted
    runc.config["annotations"] = []
    runc.write()
    runc.refused("has other annotations than the state")


def test_the_process_own_file_is_as_good_as_roots(runc: Bundle) -> None:
    # A broker or a rootless hook is not root; its engine's files are its own.
    os.chown(runc.directory, 1000, 1000)
    wanted = runc.find()
    code = (
        "import json, os, sys; os.setuid(1000)\n"
        "from oci_bpf_hook.oci.state import check, find_rootfs\n"
        "print(find_rootfs(check(json.load(sys.stdin))).path)"
    )
    for directory in (runc.directory, *runc.directory.parents):
        if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(0o755)
    # A copy, since a checkout may be where only root can go.
    hook = install(runc.directory / "hook")
    for owner, path in ((0, wanted.path), (1000, wanted.path), (2000, None)):
        os.chown(runc.file, owner, owner)
        runc.file.chmod(0o644)
        result = subprocess.run(
            ["/usr/bin/python3", "-c", code],
            input=json.dumps(runc.state),
            capture_output=True,
            text=True,
            check=False,
            cwd=hook.parent,
        )
        assert result.stdout == (f"{path}\n" if path else "")
        assert ("not root's" in result.stderr) == (path is None)


# ---- what crun says itself


def test_cruns_bundle_of_a_container_with_a_device(crun: Bundle) -> None:
    # crun before the fix of its issue 2025: with a user namespace and a device, "/".
    wanted = crun.find()
    crun.state["bundle"] = "/"
    assert crun.find() == Rootfs(path=wanted.path, masked=(), remounted=(), version=None)
    crun.state["root"] = "rootfs"
    crun.refused('the bundle is "/"')
    crun.copy_for_crun()
    assert crun.find() == wanted
    del crun.state["root"]
    assert crun.find() == wanted


def test_a_relative_root_is_relative_to_the_bundle(tmp_path: Path) -> None:
    bundle = Bundle(RELATIVE, tmp_path)
    assert bundle.state["root"] == bundle.config["root"]["path"] == "rootfs"
    wanted = f"{bundle.directory}/rootfs"
    assert bundle.find().path == wanted
    bundle.file.unlink()
    assert bundle.find().path == wanted


def test_a_relative_root_in_cruns_copy_is_no_root(tmp_path: Path) -> None:
    # Relative to what, only the bundle would say.
    bundle = Bundle(RELATIVE, tmp_path)
    bundle.copy_for_crun()
    bundle.state["bundle"] = "/"
    bundle.refused('the bundle is "/"')


def test_config_json_comes_before_cruns_word(crun: Bundle) -> None:
    # It knows the masked paths, and has the root that runc would take.
    wanted = crun.find()
    crun.state["root"] = "/somewhere/else"
    assert crun.find() == wanted
    assert wanted.masked


def test_masked_paths_that_are_none(runc: Bundle) -> None:
    values: list[object] = [None, [], {}, {"maskedPaths": None}, {"maskedPaths": "/proc"}]
    for linux in values:
        runc.config["linux"] = linux
        runc.write()
        assert runc.find().masked == ()
    del runc.config["linux"]
    runc.write()
    assert runc.find().masked == ()


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
