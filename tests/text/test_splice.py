"""splice.py: a JSON text changed in one place, and the same bytes everywhere else."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.text.splice import spliced
from oci_bpf_hook.text.strict_json import json_value, load_json, scanner

# Nothing of this is as Python would write it.
ODD = r"""
{ "big": 123456789012345678901234567890, "float": 1.10, "exp":1E2 , "minus": -0, "zero":0.0,
  "\u0061\u002f": "\/ \ud800 \u00e9 é \u0000", "empty": {}, "none": [ ],
	"linux": { "seccomp" :{"syscalls":[ {"names": ["a", "bpf"],
  "args":[{"value":18446744073709551615}]},
  {"names":["b"]} ] , "x":null} },
  "process": {"capabilities": {"bounding": ["CAP_KILL" ]}, "true":true, "one":1}
}
"""

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def splice(text: str, value: object) -> str:
    found = spliced(text, value, scanner(), json_value)
    # What stands in for the scanner where an interpreter has none.
    assert spliced(text, value, json.JSONDecoder().raw_decode, json_value) == found
    return found


def decoded(text: str) -> Any:
    return load_json(text.encode("utf-8"), unique=True)


def test_no_change_is_no_change() -> None:
    assert splice(ODD, decoded(ODD)) == ODD


def test_what_is_added_and_taken_away() -> None:
    config = decoded(ODD)
    config["process"]["capabilities"]["bounding"].append("CAP_BPF")
    config["process"]["capabilities"]["ambient"] = ["CAP_BPF"]
    rules = config["linux"]["seccomp"]["syscalls"]
    rules[0]["names"].remove("bpf")
    rules.append({"names": ["bpf"], "action": "SCMP_ACT_ALLOW"})
    changed = splice(ODD, config)
    assert decoded(changed) == config
    for kept in (
        '"big": 123456789012345678901234567890,',
        '"float": 1.10',
        '"exp":1E2',
        '"minus": -0',
        r'"\u0061\u002f": "\/ \ud800 \u00e9 é \u0000"',
        '"empty": {}',
        '"none": [ ]',
        '"args":[{"value":18446744073709551615}]',
        '{"names":["b"]}',
        '"bounding": ["CAP_KILL","CAP_BPF"]',
    ):
        assert kept in changed
    assert changed.endswith("}\n")


@pytest.mark.parametrize(
    ("text", "value", "after"),
    [
        ("[1, 2 ,3]", [1, 3], "[1,3]"),
        ("[1, 1, 2]", [1, 2, 1], "[1,2,1]"),
        ('{"a": 1, "b": 2}', {"b": 2}, '{"b": 2}'),
        ('{"a": 1}', {"a": True}, '{"a": true}'),
        ('{"a": 1.0}', {"a": 1}, '{"a": 1}'),
        ('{"a" : [] }', {"a": {}}, '{"a" : {}}'),
        ("{}", {"a": [None]}, '{"a":[null]}'),
        (" [] ", "é", ' "\\u00e9" '),
    ],
)
def test_by_hand(text: str, value: object, after: str) -> None:
    assert splice(text, value) == after


@given(VALUES, VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_it_is_what_it_is_to_be(
    before: Any, after: Any, indent: int | str | None, plain: bool
) -> None:
    text = json.dumps(before, indent=indent, ensure_ascii=not plain)
    assert splice(text, copy.deepcopy(before)) == text
    assert decoded(splice(text, after)) == after


@given(st.dictionaries(st.text(), VALUES, min_size=1), st.text(), VALUES)
def test_one_member_and_no_other(before: dict[str, Any], key: str, value: Any) -> None:
    text = json.dumps(before)
    changed = splice(text, {**before, key: value})
    for other, old in before.items():
        if other != key:
            assert f"{json.dumps(other)}: {json.dumps(old)}" in changed
