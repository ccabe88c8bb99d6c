"""Reading the policy that people write: every fault at once, each with its place."""

import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.errors import BAD_POLICY, HookError
from oci_bpf_hook.policyfile import load, schema

ROOT = Path(__file__).parents[1]


def faults(text: str) -> list[str]:
    with pytest.raises(HookError) as error:
        load(text.encode(), "p.yaml")
    assert error.value.code == BAD_POLICY
    return list(error.value.problems)


def warnings(text: str) -> list[str]:
    return [f"{one.line}:{one.column}: {one.text}" for one in load(text.encode(), "p").warnings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["p.yaml:1:1: the file is empty; it takes version: 1"]),
        ("a: b: c\n", ["p.yaml:1:5: this is no YAML: mapping values are not allowed"]),
        ("version: 2\nrules: []\n", ['p.yaml:1:10: "2" should be 1']),
        ("version: 1\n", ["p.yaml:1:1: rules is missing here"]),
        ("- a\n", ["p.yaml:1:1: this should be a mapping"]),
        (
            "version: 1\nrule: []\nrules: []\n",
            ['p.yaml:2:1: "rule" isn\'t a key here; did you mean "rules"?'],
        ),
        (
            "version: 1\nrules:\n- name: a\n  alow: {}\n",
            ["p.yaml:3:3: a rule has allow or deny", 'p.yaml:4:3: "alow" isn\'t a key here'],
        ),
        (
            "version: 1\nrules:\n- {name: a, deny: x, allow: {}}\n",
            ["p.yaml:3:3: a rule has allow or deny, not both"],
        ),
        (
            "version: 1\nrules:\n- {name: a, deny: x}\n- {name: a, deny: y}\n",
            ['p.yaml:4:10: the name "a" is taken already'],
        ),
        (
            """version: 1
rules:
- name: a
  allow:
    delegate_progs: [kprob, '5', BPF_XDP]
    profiles: [xdq]
profiles: {xdp: {delegate_progs: [xdp]}}
""",
            [
                'p.yaml:5:22: no program type is called "kprob"; did you mean "kprobe"?',
                'p.yaml:5:29: "5" is a decimal number',
                'p.yaml:5:34: no program type is called "BPF_XDP"',
                'p.yaml:6:16: there is no profile "xdq"; did you mean "xdp"?',
            ],
        ),
        (
            "version: 1\nrules:\n- name: a\n  allow: {delegate_cmds: [map_create, 5]}\n",
            ['p.yaml:4:39: "5" should be a text'],
        ),
        (
            "version: 1\nversion: 1\nrules: []\n",
            ['p.yaml:2:1: "version" stands here twice'],
        ),
        (
            "version: 1\nprofiles: &a {}\nrules: *a\n",
            ["p.yaml:2:11: aliases aren't taken"],
        ),
        (
            "version: 1\nrules:\n- name: a\n  match: {user: no-such-user-here}\n  deny: x\n",
            ['p.yaml:4:17: this host has no user "no-such-user-here"'],
        ),
        (
            "version: 1\nrules:\n- name: a\n  match: {service_account: x}\n  deny: x\n",
            ['p.yaml:4:11: "service_account" isn\'t a key here; no engine tells'],
        ),
        (
            "version: 1\nrules:\n- name: a\n  allow: {modes: ['9']}\n",
            ['p.yaml:4:19: "9" has not the right form'],
        ),
        ("version: 1\nengine: lxc\nrules: []\n", ['p.yaml:2:9: "lxc" is none of podman, cri-o']),
    ],
)
def test_faults(text: str, expected: list[str]) -> None:
    found = faults(text)
    assert len(found) == len(expected), found
    for one, start in zip(found, expected, strict=True):
        assert one.startswith(start)


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_whatever_is_in_the_file(text: bytes) -> None:
    try:
        load(text, "p.yaml")
    except HookError as error:
        code, problems = error.code, error.problems
    else:  # A fuzzer's spelling of version: 1, rules: [] would be one.
        return
    assert code == BAD_POLICY
    assert all(problem.startswith("p.yaml:") for problem in problems)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema("policy"))


RULE = "version: 1\n{engine}rules:\n- name: a\n  match: {match}\n  allow: {{}}\n"


@pytest.mark.parametrize(
    ("engine", "match", "doubtful"),
    [
        ("", "{namespace: a}", True),
        ("engine: cri-o\n", "{namespace: a}", False),
        ("engine: podman\n", "{namespace: a}", True),
        ("engine: podman\n", "{container: a}", False),
        ("engine: cri-o\n", "{annotations: {team: a}}", True),
        ("engine: cri-o\n", "{annotations: {team: a}, namespace: b}", False),
        ("engine: cri-o\n", "{annotations: {team: a}, rootless: false}", True),
        ("", "{pod: a, user: 1000}", False),
    ],
)
def test_a_grant_on_the_requester_s_word_is_warned_of(
    engine: str, match: str, *, doubtful: bool
) -> None:
    found = warnings(RULE.format(engine=engine, match=match))
    assert bool(found) is doubtful
    if doubtful:
        assert "whoever asks sets" in found[0]


def test_users_and_groups_by_name_or_id() -> None:
    text = (
        "version: 1\nrules:\n- name: a\n  match: {user: [root, '7', 1000], group: daemon}\n"
        "  deny: because\n"
    )
    (rule,) = load(text.encode(), "p.yaml").rules
    assert rule["match"] == {"user": [0, 7, 1000], "group": [1]}


def test_rules_that_are_never_reached_are_warned_of() -> None:
    text = "version: 1\nrules:\n- {name: all, deny: x}\n- {name: b, deny: y}\n"
    assert warnings(text) == ['4:3: no request comes here: rule "all" before it takes all']


def test_the_built_in_policy_is_the_shipped_file() -> None:
    command = [sys.executable, str(ROOT / "contrib" / "compile-builtin-policy"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


def test_the_built_in_policy_is_in_order() -> None:
    loaded = load((ROOT / "oci_bpf_hook" / "policy.yaml").read_bytes(), "policy.yaml")
    assert loaded.warnings == ()
