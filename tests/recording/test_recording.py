"""Recordings: what is counted as the same, and the JSON form."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel.enums import table
from oci_bpf_hook.recording import recording as module
from oci_bpf_hook.recording.call import make
from oci_bpf_hook.recording.libbpf_probes import PROBES
from oci_bpf_hook.recording.recording import Recording, RecordingError, as_json, from_json
from oci_bpf_hook.resources import schema

ENUMS = table().enums(KINDS)


def hash_map(tid: int = 1, result: int | None = 3, **fields: Any) -> Any:
    call: dict[str, Any] = {"pid": 1, "tid": tid, "cmd": 0, "map_type": 1, "shape": (4, 4, 8, 0)}
    return make(**call | fields, result=result, token=True)


def recorded(*calls: Any) -> Recording:
    recording = Recording(["/usr/bin/program", "-x"], granted={"delegate_cmds": 1})
    for call in calls:
        recording.add(call)
    recording.end()
    return recording


def test_alike_is_one_entry() -> None:
    recording = recorded(hash_map(), hash_map(2, 9), hash_map(1, -1), hash_map(), hash_map(3, None))
    counts = {entry.result: count for entry, count in recording.entries.items()}
    assert counts == {"ok": 3, "EPERM": 1, None: 1}
    assert recording.with_token
    assert recording.name == "program -x"


def test_an_errno_that_nobody_knows() -> None:
    (entry,) = recorded(hash_map(result=-4000)).entries
    assert entry.result == "-4000"


def test_json_form() -> None:
    recording = recorded(
        hash_map(name="flows"),
        hash_map(cmd=99, map_type=None, shape=()),
        make(
            pid=1,
            tid=1,
            cmd=5,
            prog_type=6,
            attach_type=37,
            shape=(9, 1, 32),
            helpers=(6, 113),
        ),
    )
    recording.exit = -9
    data = as_json(recording, ENUMS)
    jsonschema.validate(data, schema("recording"))
    assert data["calls"][0] == {
        "cmd": "map_create",
        "map_type": "hash",
        "name": "flows",
        "result": "ok",
        "token": True,
        "count": 1,
    }
    assert data["calls"][1]["cmd"] == 99
    assert data["granted"]["delegate_cmds"] == "0x1"
    back = from_json(json.loads(json.dumps(data)), ENUMS)
    assert back.entries == recording.entries
    assert as_json(back, ENUMS) == data


def test_the_schema_knows_every_probe() -> None:
    calls = schema("recording")["properties"]["calls"]["items"]["properties"]
    assert calls["probe"]["enum"] == list(PROBES)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recording": 2}, "it isn't a recording of version 1"),
        ({"command": "x"}, "command isn't a list"),
        ({"calls": {}}, "calls isn't a list"),
        ({"calls": [1]}, "calls[0]: it isn't an object"),
        ({"calls": [{"token": True}]}, "calls[0]: it has no cmd"),
        ({"calls": [{"cmd": "map_creat"}]}, "there is no command 'map_creat'"),
        ({"calls": [{"cmd": 0, "map_type": [1]}]}, "there is no map type [1]"),
        ({"calls": [{"cmd": 0, "count": "many"}]}, "count isn't of the type int"),
        ({"calls": [{"cmd": 0, "helpers": ["x"]}]}, "helpers has no numbers"),
        ({"granted": {"delegate_cmds": "any"}}, "granted has no masks"),
        ({"perf_events": {"x": 1}}, "'x' isn't one of its kinds"),
        ({"perf_events": {"probe": "x"}}, "probe isn't of the type int"),
        ({"exit": "0"}, "exit isn't of the type int"),
    ],
)
def test_what_is_none(changes: dict[str, Any], words: str) -> None:
    data = as_json(recorded(hash_map()), ENUMS) | changes
    with pytest.raises(RecordingError) as caught:
        from_json(data, ENUMS)
    assert words in str(caught.value)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["recording", "command", "calls", "granted", "cmd", "exit", "helpers"]
                ),
                inner,
            )
        ),
        max_leaves=10,
    )
)
def test_anything(data: Any) -> None:
    if isinstance(data, dict):
        data["recording"] = 1
    try:
        from_json(data, ENUMS)
    except RecordingError:
        pass


def test_it_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NAMED_MAX", 3)
    monkeypatch.setattr(module, "_ENTRIES_MAX", 5)
    recording = recorded(*(hash_map(name=f"map{number}") for number in range(100)))
    # The last of them has no name, and all that come behind it.
    assert list(recording.entries.values()) == [1, 1, 1, 97]
    threads = recorded(*(hash_map(tid) for tid in range(1000)))
    assert list(threads.entries.values()) == [1000]
    many = recorded(*(hash_map(cmd=100 + number, map_type=None) for number in range(8)))
    assert (len(many.entries), many.dropped) == (5, 3)
