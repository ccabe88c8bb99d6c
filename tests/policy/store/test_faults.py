"""Faults of the policy that people write: all of them at once, each with its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.errors import BAD_POLICY, HookError
from oci_bpf_hook.policy.store.file import load

MATCH = "version: 1\nrules:\n- name: a\n  match: {{{}}}\n  deny: x\n"


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(HookError) as error:
        load(text if isinstance(text, bytes) else text.encode(), "p.yaml")
    assert error.value.code == BAD_POLICY
    return list(error.value.sentences)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["p.yaml:1:1: the file is empty; it has to have version: 1"]),
        ("a: b: c\n", ["p.yaml:1:5: this isn't YAML: mapping values are not allowed"]),
        ("version: 2\nrules: []\n", ['p.yaml:1:10: "2" should be 1']),
        ("version: 1\n", ["p.yaml:1:1: rules is missing here"]),
        ("- a\n", ["p.yaml:1:1: this should be a mapping"]),
        (
            "version: 1\nrule: []\nrules: []\n",
            ['p.yaml:2:1: "rule" isn\'t a key here; did you mean "rules"?'],
        ),
        (
            "version: 1\nrules:\n- name: a\n  alow: {}\n",
            ["p.yaml:3:3: a rule has either allow or deny", 'p.yaml:4:3: "alow" isn\'t a key here'],
        ),
        (
            "version: 1\nrules:\n- {name: a, deny: x, allow: {}}\n",
            ["p.yaml:3:3: a rule has either allow or deny, not both"],
        ),
        (
            "version: 1\nrules:\n- {name: a, deny: x}\n- {name: a, deny: y}\n",
            ['p.yaml:4:10: another rule already has the name "a"'],
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
            """version: 1
engine: lxc
audit: x
rules:
- name: a
  match: {usr: x}
  allow: {profiles: [b, c, d]}
- name: b
  allow: {profiles: [b, c, d, e], delegate_maps: [hsh]}
- name: b
  match: {user: no-such-user-here}
  deny: x
profiles:
  b: {comment: 5}
  c: {delegate_progs: [xdq]}
  D: {delegate_progs: [xdp]}
""",
            [
                'p.yaml:2:9: "lxc" is not one of',
                'p.yaml:3:8: "x" should be a mapping',
                'p.yaml:6:11: "usr" isn\'t a key here',
                'p.yaml:9:28: there is no profile "d"',
                'p.yaml:9:31: there is no profile "e"',
                'p.yaml:9:51: no map type is called "hsh"',
                'p.yaml:10:9: another rule already has the name "b"',
                "p.yaml:11:17: this host has no user",
                'p.yaml:14:16: "5" should be a text',
                'p.yaml:15:24: no program type is called "xdq"',
            ],
        ),
        (
            "version: 1\nprofiles: []\nrules: {}\n",
            ["p.yaml:2:11: this should be a mapping", "p.yaml:3:8: this should be a list"],
        ),
        (
            "version: 1\nprofiles: [a, {delegate_maps: 5}]\nrules: {a: b}\naudit: {to: 5}\n",
            [
                "p.yaml:2:11: this should be a mapping",
                "p.yaml:3:8: this should be a list",
                'p.yaml:4:13: "5" should be an absolute path, syslog or none',
            ],
        ),
        ("version: 1\nrules: x\n", ['p.yaml:2:8: "x" should be a list']),
        ("version: 1\nrules: 5\n", ['p.yaml:2:8: "5" should be a list']),
        (
            "version: 1\nrules: []\nprofiles: yes\n",
            ["p.yaml:3:11: a word without quotes that means true"],
        ),
        ("version: 1\nprofiles: {a: []}\n", ["p.yaml:1:1: rules is", "p.yaml:2:15: this should"]),
        (
            "version: 1\nversion: 1\nrules: []\n",
            ['p.yaml:2:1: "version" is given twice'],
        ),
        (
            "version: 1\nprofiles: &a {}\nrules: *a\n",
            ["p.yaml:2:11: aliases aren't allowed"],
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
            ['p.yaml:4:19: "9" should be '],
        ),
        ("version: 1\nengine: lxc\nrules: []\n", ['p.yaml:2:9: "lxc" is not one of podman, cri-o']),
        ("version: 1\nrules: [a]\n", ['p.yaml:2:9: "a" should be a mapping']),
        ("version: 1\nrules:\n", ["p.yaml:2:7: nothing should be a list"]),
        (b"version: 1 # \xe9\n", ["p.yaml:1:14: this isn't UTF-8"]),
        # What YAML 1.1 takes for something else than text.
        ("version: 1.0\nrules: []\n", ['p.yaml:1:10: "1.0" reads as a float']),
        ("version: 1\nrules: []\nengine: 2020-99-99\n", ['p.yaml:3:9: "2020-99-99" reads as a']),
        ("version: 1\nrules: []\nengine: !!int x\n", ['p.yaml:3:9: "x" isn\'t of the type int']),
        ("version: 1\nrules: []\nengine: !!bool x\n", ['p.yaml:3:9: "x" isn\'t of the type bool']),
        ("version: !!int\nrules: []\n", ['p.yaml:1:10: "" isn\'t of the type int']),
        (f"version: {'9' * 5000}\nrules: []\n", ["p.yaml:1:10: "]),
        ("version: 1\nrules: !!set {a}\n", ["p.yaml:2:8: this reads as a set"]),
        (
            "version: 1\nrules: []\nprofiles: {1: {x: y}, a: {}, on: {}}\n",
            ["p.yaml:3:12: a key is a plain word", "p.yaml:3:30: a key is a plain word"],
        ),
        ("a: " + "[" * 99 + "]" * 99, ["p.yaml:1:35: this is nested too deeply"]),
        # Owners.
        (MATCH.format("user: 1.0"), ['p.yaml:4:17: "1.0" reads as a float']),
        (
            MATCH.format("user: on"),
            ["p.yaml:4:17: a word without quotes that means true should be a name or an"],
        ),
        (
            MATCH.format("user: -1"),
            ['p.yaml:4:17: "-1" should be a name or an'],
        ),
        (
            MATCH.format("group: [0, []]"),
            ["p.yaml:4:22: this should be a name or"],
        ),
        (MATCH.format("user: '٣'"), ["p.yaml:4:17: this host has no user"]),
        (MATCH.format(f"user: '{'9' * 5000}'"), ["p.yaml:4:17: this host has no user"]),
        (MATCH.format("user: '4294967295'"), ["p.yaml:4:17: this host has no user"]),
        # Numbers as nobody means them.
        (MATCH.format("user: 0100"), ['p.yaml:4:17: "0100" reads as the number 64; write']),
        (MATCH.format("user: 1:30"), ['p.yaml:4:17: "1:30" reads as the number 90; write']),
        (MATCH.format(f"user: 0x{'f' * 5000}"), ["p.yaml:4:17: "]),
        (
            "version: 1\nrules:\n- name: a\n  allow: {modes: [0755], delegate_maps: [0x21]}\n",
            [
                'p.yaml:4:19: "0755" reads as the number 493; write that, or put a text in quotes',
                'p.yaml:4:42: "0x21" reads as the number 33; write that, or put a text in quotes',
            ],
        ),
        # Words that aren't texts.
        (
            MATCH.format("namespace: no"),
            ["p.yaml:4:22: a word without quotes that means false should be "],
        ),
        (
            MATCH.format("namespace: [on]"),
            ["p.yaml:4:23: a word without quotes that means true should be"],
        ),
        (
            MATCH.format("namespace: 5"),
            ['p.yaml:4:22: "5" should be a text or a'],
        ),
        # What begins with a ! is a tag.
        (
            "version: 1\nrules:\n- name: a\n  allow: {delegate_progs: [any, !kprobe]}\n",
            ["p.yaml:4:40: this isn't YAML: did not find expected whitespace or line break; put"],
        ),
        (
            "version: 1\nrules:\n- name: a\n  allow:\n    delegate_progs:\n    - any\n    - !xdp\n",
            ['p.yaml:7:7: "!xdp" is a tag here; put a text that begins with a ! in quotes'],
        ),
        # Names and forms in words.
        (
            "version: 1\nrules: []\nprofiles:\n  my profile: {}\n",
            ['p.yaml:4:3: "my profile" should be at most 63 letters'],
        ),
        (
            'version: 1\nrules: []\nprofiles:\n  "a\\n": {}\n',
            ['p.yaml:4:3: "a\\n" has a character that can'],
        ),
        (
            "version: 1\nrules: []\naudit: {to: Syslog}\n",
            ['p.yaml:3:13: "Syslog" should be an absolute path, syslog or none'],
        ),
        (MATCH.format("namespace: ''"), ["p.yaml:4:22: this is empty"]),
        (MATCH.format("namespace: []"), ["p.yaml:4:22: this is empty"]),
        (MATCH.format("annotations: {}"), ["p.yaml:4:24: this is empty"]),
        # Not aliases alone.
        (
            "version: 1\nrules: []\nprofiles:\n  a: &a {}\n  b: {<<: *a}\n",
            ["p.yaml:5:7: merge keys aren't allowed; name a profile instead"],
        ),
        (
            "version: 1\n---\nversion: 1\n",
            ["p.yaml:2:1: this isn't YAML: expected a single document in the stream, but found an"],
        ),
        # Files that are no text.
        ("version: 1\nrules: []\n# \0\n", ['p.yaml:3:3: "\\x00" can\'t stand in YAML']),
        ("version: 1\nrules: []\n".encode("utf-16"), ["p.yaml:1:1: this isn't UTF-8"]),
        ("version: 1\n# é\n# ".encode() + b"\xe9\n", ["p.yaml:3:3: this isn't UTF-8"]),
        # What would end a line of a log, or can't be seen there.
        (MATCH.format('user: "a\\0b"'), ['p.yaml:4:17: "a\\x00b" has a character that can']),
        (MATCH.format('image: "a\\eb"'), ['p.yaml:4:18: "a\\x1bb" has a character that can']),
        (
            'version: 1\nrules:\n- {name: "a\\n", deny: x}\n',
            ['p.yaml:3:10: "a\\n" has a character that can'],
        ),
        (
            'version: 1\nrules:\n- name: a\n  allow: {modes: ["0755\\n", "77777"]}\n',
            ['p.yaml:4:19: "0755\\n" has a character'],
        ),
        (
            "version: 1\nrules:\n- name: a\n  allow: {modes: ['17777']}\n",
            ['p.yaml:4:19: "17777" should be '],
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str | bytes) else "",
)
def test_faults(text: str | bytes, expected: list[str]) -> None:
    found = faults(text)
    assert not [one for one in found if "\n" in one]
    assert len(found) == len(expected), found
    for one, start in zip(found, expected, strict=True):
        assert one.startswith(start)


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_whatever_is_in_the_file(text: bytes) -> None:
    never_a_bug(text)


def never_a_bug(text: bytes) -> None:
    """Each file is in order, or has faults that are told."""
    try:
        load(text, "p.yaml")
    except HookError as error:
        code, problems = error.code, error.sentences
    else:  # A fuzzer's spelling of version: 1, rules: [] would be one.
        return
    assert code == BAD_POLICY
    assert all(problem.startswith("p.yaml:") for problem in problems)
    assert not [problem for problem in problems if "\n" in problem]


SCALARS = """
1 1.0 '1' -1 x any '!any' !any 0x1 ~ true on 1e9 2020-01-01 2020-99-99 1:2 '' | *a &a
!!binary !!int '\\0' "\\0" root nobody podman refuse trim '0755' xdp map_create
"""
KEYS = """
version engine audit to required profiles comment rules name match allow deny on_excess user group
image annotations rootless paths modes delegate_cmds delegate_progs 1 on ~ <<
"""
keys = st.sampled_from(KEYS.split())
flow = st.recursive(
    st.sampled_from(SCALARS.split()),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(keys, inner, max_size=4).map(
            lambda items: f"{{{', '.join(f'{key}: {value}' for key, value in items.items())}}}"
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(keys, flow, max_size=4), flow)
def test_whatever_stands_anywhere(data: dict[str, str], rule: str) -> None:
    """No value of YAML's, wherever it stands, is a bug of ours."""
    whole = {"version": "1", "rules": f"[{rule}]", **data}
    never_a_bug("".join(f"{key}: {value}\n" for key, value in whole.items()).encode())


@pytest.mark.parametrize("depth", [5000, 100_000])
def test_nested_too_deeply(depth: int) -> None:
    """PyYAML of Debian 12 ends the process there; a later libyaml has a limit of its own."""
    for end in ("", "]" * depth):
        (found,) = faults(f"a: {'[' * depth}{end}")
        assert "nest" in found
