"""The policy that people write, in order: what it is compiled to, and what is warned of."""

import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.errors import HookError
from oci_bpf_hook.policy.store.file import load
from oci_bpf_hook.resources import schema
from tests.support.places import ROOT


def warnings(text: str) -> list[str]:
    return [f"{one.line}:{one.column}: {one.text}" for one in load(text.encode(), "p").warnings]


def test_a_reason_is_one_line() -> None:
    """As YAML's blocks end with a line's end, and the reason goes to a log."""
    text = "version: 1\nrules:\n- name: a\n  deny: |\n    ask the\n    platform team\n"
    (rule,) = load(text.encode(), "p.yaml").rules
    assert rule["deny"] == "ask the platform team"


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
        ("", "{pod: a, group: [1000, 1001]}", False),
        # The owner of all that a rootful engine runs.
        ("", "{pod: a, user: root}", True),
        ("", "{pod: a, user: [1000, 0]}", True),
        ("", "{pod: a, group: 0}", True),
        # What any is, but for a device, which not everybody may use.
        ("", '{pod: a, cdi: "*"}', False),
        ("engine: cri-o\n", '{annotations: {team: a}, namespace: ["*"]}', True),
        ("engine: cri-o\n", '{annotations: {team: a}, namespace: "a*"}', False),
    ],
)
def test_a_grant_on_the_requester_s_word_is_warned_of(
    engine: str, match: str, *, doubtful: bool
) -> None:
    found = warnings(RULE.format(engine=engine, match=match))
    assert bool(found) is doubtful
    if doubtful:
        assert "whoever asks can set" in found[0]


RULES = """
version: 1
rules:
- name: bare
  allow: {}
- name: all
  allow:
    paths: /sys/*
    modes: ['0755', '1777', '7']
    record: true
    shim: true
  on_excess: trim
- name: refuse
  match: {host_network: no, namespace: [a, b], annotations: {k: v}}
  allow: {paths: [/a, /b], record: false}
  on_excess: refuse
- name: trusted
  match: {host_network: yes}
  allow: {confined: false}
- name: never
  deny: because
"""


def test_what_is_compiled() -> None:
    bare, everything, refuse, trusted, deny = load(RULES.encode(), "p.yaml").rules
    absent: dict[str, Any] = {"match": {}, "masks": {}, "paths": None, "modes": None}
    plain = {
        **absent,
        "confined": True,
        "record": False,
        "shim": False,
        "trim": False,
        "deny": None,
    }
    assert bare == {**plain, "name": "bare"}
    assert deny == {**plain, "name": "never", "deny": "because"}
    modes = [0o755, 0o1777, 0o7]
    assert everything == {
        **plain, "name": "all", "paths": ["/sys/*"], "modes": modes, "record": True, "shim": True,
        "trim": True,
    }  # fmt: skip
    kernel = {"match": {"host_network": True}, "confined": False}
    assert trusted == {**plain, "name": "trusted", **kernel}
    match = {"host_network": False, "namespace": ["a", "b"], "annotations": {"k": ["v"]}}
    assert refuse == {**plain, "name": "refuse", "match": match, "paths": ["/a", "/b"]}


def test_what_is_compiled_of_the_rest() -> None:
    header = load(RULES.encode(), "p.yaml").header
    audit = {"to": "/var/log/oci-bpf-hook/audit.jsonl", "required": True}
    uses = ["annotations", "host_network", "namespace"]
    assert header == {
        "engine": None, "image_annotations": False, "audit": audit, "profiles": {}, "uses": uses
    }  # fmt: skip
    more = (
        "engine: cri-o\nimage_annotations: yes\naudit: {to: none, required: no}\n"
        "profiles: {a: {delegate_maps: [hash]}}\n"
    )
    header = load(f"version: 1\nrules: []\n{more}".encode(), "p.yaml").header
    assert header["image_annotations"] is True
    assert (header["engine"], header["audit"]) == ("cri-o", {"to": "none", "required": False})
    assert header["profiles"] == {"a": {"delegate_maps": 2}}


def test_a_rule_that_denies_on_the_requester_s_word_is_not_warned_of() -> None:
    assert warnings("version: 1\nrules:\n- {name: a, match: {pod: x}, deny: y}\n") == []


def test_users_and_groups_by_name_or_id() -> None:
    text = (
        "version: 1\nrules:\n- name: a\n  match: {user: [root, '7', 1000], group: daemon}\n"
        "  deny: because\n"
    )
    (rule,) = load(text.encode(), "p.yaml").rules
    assert rule["match"] == {"user": [0, 7, 1000], "group": [1]}


@given(
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
    st.lists(st.sampled_from(["xdp", "!xdp", "kprobe", "!kprobe", "any", "0x6", "!0x6"])),
)
def test_what_a_rule_allows(named: list[str], items: list[str]) -> None:
    """The union of its profiles and items, less its ! items, as an annotation means it."""
    head = (
        "version: 1\nprofiles: {a: {delegate_progs: [xdp]}, b: {delegate_progs: [kprobe, tracing]}}"
    )
    text = f"{head}\nrules: [{{name: r, allow: {{profiles: {named}, delegate_progs: {items}}}}}]\n"
    values = {"xdp": {6}, "kprobe": {2}, "any": set(range(64)), "0x6": {1, 2}}
    profiles = {"a": {6}, "b": {2, 26}}
    given = [profiles[name] for name in named]
    given += [values[item] for item in items if item[0] != "!"]
    taken = [values[item[1:]] for item in items if item[0] == "!"]
    expected = set().union(*given) - set().union(*taken)
    (rule,) = load(text.encode(), "p.yaml").rules
    mask = rule["masks"].get("delegate_progs", 0)
    assert {bit for bit in range(64) if mask >> bit & 1} == expected


def test_paths_that_no_request_has() -> None:
    text = (
        "version: 1\nrules:\n- name: a\n  allow:\n    paths: [/r/*, '*', '?x', sys/fs, /a/, //a]\n"
    )
    assert [one.split(";")[0] for one in warnings(text)] == [
        '5:30: no path matches "sys/fs"',
        '5:38: no path matches "/a/"',
        '5:43: no path matches "//a"',
    ]
    (one,) = warnings("version: 1\nrules:\n- {name: a, allow: {paths: x}}\n")
    assert one.startswith("3:28: no path matches")


def test_rules_that_are_never_reached_are_warned_of() -> None:
    text = "version: 1\nrules:\n- {name: all, deny: x}\n- {name: b, deny: y}\n"
    assert warnings(text) == [
        '4:3: this rule never decides, because rule "all" before it matches each request'
    ]


def test_the_built_in_policy_is_the_shipped_file() -> None:
    command = [sys.executable, str(ROOT / "contrib" / "compile-builtin-policy"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


def test_the_built_in_policy_is_in_order() -> None:
    loaded = load((ROOT / "oci_bpf_hook" / "policy.yaml").read_bytes(), "policy.yaml")
    assert loaded.warnings == ()


def test_rules_about_devices_behind_one_that_takes_every_request() -> None:
    rules = "- {name: nobody, deny: nothing}\n- {name: devices, match: {cdi: x}, deny: nothing}\n"
    assert load(f"version: 1\nrules:\n{rules}".encode(), "policy.yaml").warnings == ()
    more = "- {name: late, match: {user: 0}, deny: nothing}\n"
    (warning,) = load(f"version: 1\nrules:\n{rules}{more}".encode(), "policy.yaml").warnings
    assert (warning.line, "before it matches each request" in warning.text) == (5, True)


@pytest.mark.parametrize(
    ("key", "where"),
    [("record: true", "allow"), ("confined: false", "allow"), ("user: root", "match")],
)
def test_a_key_in_another_place_than_its_own(key: str, where: str) -> None:
    """As whoever has read of `record: true` and not of its place may write it."""
    text = f"version: 1\nrules:\n- name: r\n  {key}\n  allow: {{delegate_cmds: [any]}}\n"
    with pytest.raises(HookError, match=f"isn't a key here; it belongs in the {where} of a rule"):
        load(text.encode(), "policy.yaml")
