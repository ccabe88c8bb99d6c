"""seccomp.py and `oci-bpf-hook seccomp`: bpf(2) for CAP_BPF, and nothing else changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.errors import DONE, USAGE
from oci_bpf_hook.oci.seccomp import BASES, allow_bpf
from tests.support.command import command

# As Debian 12 has it, and as containers-common has had it since 0.60.
OLD = [
    {"names": ["read", "bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
    {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
]
NEW = [
    {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
    {"names": ["write"], "action": "SCMP_ACT_ALLOW"},
]
PROFILE = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"]}


def in_force(profile: dict[str, Any], *capabilities: str) -> list[str]:
    """What an engine makes of the rules for bpf(2), by the capabilities of a container."""
    return [
        rule["action"]
        for rule in profile["syscalls"]
        if "bpf" in rule["names"]
        and set(rule.get("includes", {}).get("caps", [])) <= set(capabilities)
        and set(rule.get("excludes", {}).get("caps", [])).isdisjoint(capabilities)
    ]


@pytest.mark.parametrize("rules", [OLD, NEW, OLD + NEW, []], ids=["old", "new", "both", "none"])
def test_one_rule_for_whatever_capabilities(rules: list[dict[str, Any]]) -> None:
    changed = allow_bpf({**PROFILE, "syscalls": rules})
    for capabilities in (["CAP_BPF"], ["CAP_SYS_ADMIN"], ["CAP_BPF", "CAP_SYS_ADMIN"]):
        assert in_force(changed, *capabilities) == ["SCMP_ACT_ALLOW"]
    assert in_force(changed) == in_force(changed, "CAP_NET_ADMIN") == ["SCMP_ACT_ERRNO"]
    # All else is as it was.
    assert {key: changed[key] for key in PROFILE} == PROFILE
    others = {name for rule in rules for name in rule["names"]} - {"bpf"}
    assert {name for rule in changed["syscalls"] for name in rule["names"]} - {"bpf"} == others
    assert allow_bpf(changed) == changed


def test_it_changes_no_rule_of_its_argument() -> None:
    before = json.dumps(OLD)
    allow_bpf({"syscalls": OLD})
    assert json.dumps(OLD) == before


def test_the_engine_s_own() -> None:
    base = next(path for path in BASES if Path(path).exists())
    done = command("seccomp")
    assert (done.returncode, done.stderr) == (DONE, "")
    assert done.stdout == command("seccomp", "--base", base).stdout
    assert json.loads(done.stdout) == allow_bpf(json.loads(Path(base).read_text()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "isn't a seccomp profile"),
        ("[]", "isn't a JSON object"),
        ('{"syscalls": 1}', "aren't a list of rules"),
        ('{"syscalls": [{"names": "bpf"}]}', "aren't a list of rules"),
    ],
)
def test_no_profile(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "base.json").write_text(text)
    done = command("seccomp", "--base", tmp_path / "base.json")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert words in done.stderr


def test_it_may_be_written_over_its_base(tmp_path: Path) -> None:
    base = tmp_path / "seccomp.json"
    base.write_text(json.dumps({**PROFILE, "syscalls": OLD}))
    done = command("seccomp", "--base", base, "--output", base)
    assert (done.returncode, done.stdout) == (DONE, f"write {base} (0644)\n")
    assert json.loads(base.read_text()) == allow_bpf({**PROFILE, "syscalls": OLD})
    again = command("seccomp", "--base", base, "--output", base)
    assert (again.returncode, again.stdout) == (DONE, "")
