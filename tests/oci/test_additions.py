"""additions.py: what is added to a config.json is noted, and goes away again."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.oci.additions import NOTES, Additions, has_user_namespace, undo
from oci_bpf_hook.oci.cdi import PLACE

HOOK = {"path": "/x/oci-bpf-hook", "args": ["oci-bpf-hook"], "env": ["PATH=/bin"], "timeout": 15}
ASK = {"io.bpffs.delegate_cmds": "map_create"}
FULL: dict[str, Any] = {
    "process": {
        "user": {"uid": 0},
        "env": ["PATH=/bin"],
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL", "CAP_BPF"]},
    },
    "annotations": {"a": "b", "io.bpffs.delegate_cmds": "any"},
    "hooks": {"createRuntime": [{"path": "/other"}], "poststop": []},
    "linux": {
        "namespaces": [{"type": "user"}],
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["read", "bpf", "write"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                {"names": ["close"], "action": "SCMP_ACT_ALLOW"},
            ],
        },
    },
}


def inject(config: dict[str, Any], *, path: str = "/run/bpf") -> None:
    added = Additions(config)
    added.annotations(ASK)
    added.hook(HOOK)
    added.capabilities(["BPF", "NET_ADMIN"])
    added.bpf()
    added.token_path(path)
    added.note()


def bpf_rules(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [rule for rule in config["linux"]["seccomp"]["syscalls"] if "bpf" in rule["names"]]


def test_a_filter_that_hands_bpf_to_a_listener() -> None:
    """A recording's; another rule for bpf beside it is its author's."""
    config = copy.deepcopy(FULL)
    handed = {"names": ["bpf"], "action": "SCMP_ACT_NOTIFY"}
    config["linux"]["seccomp"]["syscalls"].append(handed)
    before = copy.deepcopy(config["linux"])
    inject(config)
    assert config["linux"] == before


def test_what_is_added() -> None:
    config = copy.deepcopy(FULL)
    inject(config)
    assert config["hooks"]["createRuntime"] == [{"path": "/other"}, HOOK]
    assert config["annotations"]["io.bpffs.delegate_cmds"] == "map_create"
    sets = config["process"]["capabilities"]
    assert sets["bounding"] == ["CAP_KILL", "CAP_BPF", "CAP_NET_ADMIN"]
    assert sets["effective"] == ["CAP_KILL", "CAP_BPF", "CAP_NET_ADMIN"]
    assert set(sets) == {"bounding", "effective", "permitted"}
    assert bpf_rules(config) == [{"names": ["bpf"], "action": "SCMP_ACT_ALLOW"}]
    assert config["process"]["env"] == ["PATH=/bin", "LIBBPF_BPF_TOKEN_PATH=/run/bpf"]


def test_ambient_for_whoever_isn_t_root() -> None:
    config = copy.deepcopy(FULL)
    config["process"]["user"]["uid"] = 1000
    inject(config)
    sets = config["process"]["capabilities"]
    assert sets["ambient"] == sets["inheritable"] == ["CAP_BPF", "CAP_NET_ADMIN"]


@pytest.mark.parametrize("config", [FULL, {}, {"linux": {}, "annotations": None}], ids=len)
def test_undone_it_is_as_before(config: dict[str, Any]) -> None:
    changed = copy.deepcopy(config)
    inject(changed)
    assert changed != config
    undo(changed)
    assert {key: value for key, value in changed.items() if value is not None} == {
        key: value for key, value in config.items() if value is not None
    }
    undo(changed)


def test_once_more_it_is_the_same() -> None:
    config = copy.deepcopy(FULL)
    inject(config)
    again = copy.deepcopy(config)
    undo(again)
    inject(again)
    assert again == config


def test_others_changes_stay() -> None:
    config = copy.deepcopy(FULL)
    inject(config)
    config["annotations"]["c"] = "d"
    config["hooks"]["createRuntime"].append({"path": "/third"})
    config["process"]["capabilities"]["bounding"].insert(0, "CAP_CHOWN")
    config["linux"]["seccomp"]["syscalls"].insert(0, {"names": ["x"], "action": "SCMP_ACT_ALLOW"})
    del config["process"]["env"]
    undo(config)
    assert config["annotations"] == FULL["annotations"] | {"c": "d"}
    assert config["hooks"]["createRuntime"] == [{"path": "/other"}, {"path": "/third"}]
    assert config["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_KILL"]
    # The rule for bpf(2) means what it did, if not at its old place.
    assert {rule["action"] for rule in bpf_rules(config)} == {"SCMP_ACT_ERRNO"}
    assert "env" not in config["process"]


@pytest.mark.parametrize(
    "seccomp",
    [
        None,
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []},
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ALLOW"}],
        },
    ],
)
def test_where_bpf_is_let_through_already(seccomp: dict[str, Any] | None) -> None:
    config = {"linux": {"seccomp": copy.deepcopy(seccomp)}}
    Additions(config).bpf()
    assert config == {"linux": {"seccomp": seccomp}}


def test_a_variable_that_is_set_stays() -> None:
    config = {"process": {"env": ["LIBBPF_BPF_TOKEN_PATH="]}}
    Additions(config).token_path("/run/bpf")
    assert config == {"process": {"env": ["LIBBPF_BPF_TOKEN_PATH="]}}


@pytest.mark.parametrize("notes", ["", "[", "1", "[1]", '[["made"]]', '[["rule", 0, {}]]'])
def test_notes_that_are_none(notes: str) -> None:
    with pytest.raises(ValueError, match=NOTES):
        undo({"annotations": {NOTES: notes}})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(values)
def test_no_notes_do_worse_than_raise(notes: object) -> None:
    try:
        undo({"annotations": {NOTES: json.dumps(notes)}, **copy.deepcopy(FULL)})
        undo({**copy.deepcopy(FULL), "annotations": {NOTES: json.dumps(notes)}})
    except ValueError:
        pass


def test_user_namespace() -> None:
    assert has_user_namespace(FULL)
    assert not has_user_namespace({"linux": {"namespaces": [{"type": "mount"}]}})
    assert not has_user_namespace({})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["A=b"], ["A=b", f"LD_PRELOAD={PLACE}"]),
        (["LD_PRELOAD="], [f"LD_PRELOAD={PLACE}"]),
        (["LD_PRELOAD=/a.so", "A=b"], [f"LD_PRELOAD=/a.so:{PLACE}", "A=b"]),
        # libc takes the last.
        (["LD_PRELOAD=/a", "LD_PRELOAD=b c"], ["LD_PRELOAD=/a", f"LD_PRELOAD=b c:{PLACE}"]),
        ([f"LD_PRELOAD=/a.so {PLACE}"], [f"LD_PRELOAD=/a.so {PLACE}"]),
    ],
)
def test_the_shim_is_preloaded_after_what_the_image_preloads(
    before: list[str], after: list[str]
) -> None:
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    config: dict[str, Any] = {"process": {"env": [*before]}, "mounts": [*mounts]}
    original = copy.deepcopy(config)
    for _ in range(2):
        added = Additions(config)
        added.shim("/usr/share/shim.so")
        assert config["process"]["env"] == after
        shim = {"destination": PLACE, "type": "bind", "source": "/usr/share/shim.so"}
        options = ["bind", "ro", "nosuid", "nodev"]
        assert config["mounts"] == [*mounts, {**shim, "options": options}]
        added.note()
    undone = copy.deepcopy(config)
    # The notes of the first time; the second has added nothing and noted nothing.
    undo(undone)
    assert undone == original
    config["process"]["env"].append("B=c")
    undo(config)
    assert config["process"]["env"] == [*before, "B=c"]


def test_a_container_without_mounts_and_environment_gets_the_shim() -> None:
    config: dict[str, Any] = {}
    added = Additions(config)
    added.shim("/usr/share/shim.so")
    added.note()
    assert config["process"]["env"] == [f"LD_PRELOAD={PLACE}"]
    assert len(config["mounts"]) == 1
    undo(config)
    assert config == {}
