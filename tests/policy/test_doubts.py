"""What `policy check` says of whom a rule trusts, and of what a confined rule doesn't give."""

import pytest

from oci_bpf_hook.policy.store.file import load

TRUSTED = "whoever matches is trusted with the kernel"
RULE = (
    "version: 1\n{engine}rules:\n- name: a\n  match: {match}\n  allow: {{confined: {confined}}}\n"
)
PROFILES = """\
version: 1
profiles:
  xdp: {delegate_progs: [socket_filter, xdp]}
  trace: {delegate_progs: [socket_filter, tracepoint, tracing], delegate_maps: [hash]}
  ops: {delegate_progs: [struct_ops], delegate_maps: [hash, struct_ops]}
rules:
- name: a
  allow:
    confined: %s
    %s
"""


def warnings(text: str) -> list[str]:
    """Each with its place; the last line's end is the only difference between two files."""
    found = load(text.encode(), "p.yaml").warnings
    return [f"{one.line}:{one.column}: {one.text}" for one in found]


@pytest.mark.parametrize(
    ("engine", "match", "louder"),
    [
        ("", "{user: 1000}", ""),
        ("", "{user: 1000, rootless: true}", ""),
        ("", "{user: 1000, pod: a}", ""),
        ("", "{cdi: x}", ""),
        ("engine: podman\n", "{container: a}", ""),
        ("engine: cri-o\n", "{namespace: a}", ""),
        ("engine: cri-o\n", "{namespace: a, annotations: {team: a}}", ""),
        ("", "{}", "every container and every user"),
        ("", "{namespace: a}", "whoever asks can set namespace freely"),
        ("engine: podman\n", "{image: a}", "whoever asks can set image freely"),
        ("", "{container: a, user: 0}", "whoever asks can set container freely"),
        ("", "{annotations: {a: b}, rootless: true}", "whoever asks can set annotations"),
        ("", "{rootless: true}", "rootless: true holds for every user of this host"),
        (
            "",
            "{rootless: true, host_network: true}",
            "rootless: true, host_network: true holds for",
        ),
        ("", "{host_cgroup: true}", "host_cgroup: true holds for every user of this host"),
        ("", "{host_cgroup: false}", "many containers of root's engines match"),
        ("", "{host_network: true, rootless: false}", "many containers of root's engines match"),
        ("", "{rootless: false}", "many containers of root's engines match"),
        ("", "{user: [1000, root]}", "many containers of root's engines match"),
        ("engine: cri-o\n", "{engine: cri-o}", "many containers of root's engines match"),
        ("engine: cri-o\n", '{namespace: "*"}', "many containers of root's engines match"),
    ],
)
def test_whom_a_rule_trusts_with_the_kernel(engine: str, match: str, louder: str) -> None:
    text = RULE.format(engine=engine, match=match, confined="false")
    (found,) = warnings(text)
    line = 6 if engine else 5
    if louder:
        assert found.startswith(f"{line}:21: ")
        assert louder in found
        assert f", and {TRUSTED}" in found
    else:
        assert found == f"{line}:21: {TRUSTED}"
    # What is confined is trusted with nothing.
    assert TRUSTED not in "".join(warnings(text.replace("confined: false", "confined: true")))


@pytest.mark.parametrize(
    ("allow", "expected"),
    [
        ("profiles: [xdp]", []),
        ("delegate_progs: [xdp, cgroup_skb, '!kprobe']", []),
        ("profiles: [xdp, trace]", ['10:21: "trace" has tracepoint, tracing, which']),
        ("profiles: [ops]", ['10:16: "ops" has struct_ops, which']),
        ("delegate_maps: [hash, struct_ops]", ['10:27: this rule never gives "struct_ops", ']),
        (
            "delegate_progs: [xdp, kprobe, bpf_prog_type_lsm]",
            [
                '10:27: this rule never gives "kprobe", ',
                '10:35: "bpf_prog_type_lsm" has lsm, which this rule never gives',
            ],
        ),
        ("delegate_progs: ['0x6']", ['10:22: "0x6" has kprobe, which']),
        # What is taken away again is nothing to warn of.
        ("delegate_progs: ['0x6', '!kprobe']", []),
        ("profiles: [trace]\n    delegate_progs: ['!tracepoint', '!tracing']", []),
    ],
)
def test_what_a_confined_rule_does_not_give(allow: str, expected: list[str]) -> None:
    found = warnings(PROFILES % ("true", allow))
    assert len(found) == len(expected)
    for one, start in zip(found, expected, strict=True):
        assert one.startswith(start)
        assert "; leave out " in one
        assert "(confined: false)" in one
    assert warnings(PROFILES % ("false", allow)) == [
        f"9:15: this rule matches every container and every user, and {TRUSTED}"
    ]


def test_many_that_it_does_not_give() -> None:
    (found,) = warnings(PROFILES % ("true", "delegate_progs: [any]"))
    assert found.startswith('10:22: "any" has kprobe, tracepoint, ')
    assert " more, which this rule never gives, because the rule is confined" in found
