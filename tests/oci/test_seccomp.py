"""seccomp.py and `oci-bpf-hook seccomp`: bpf(2) for CAP_BPF, and nothing else changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.errors import DONE, USAGE, quote
from oci_bpf_hook.kernel.syscall_names import unknown
from oci_bpf_hook.oci.seccomp import BASES, allow_bpf
from oci_bpf_hook.oci.seccomp_profile import check, faults
from tests.support.command import command
from tests.support.engines import RUNTIMES, Runtime
from tests.support.podman import World

# As Debian 12 has it, and as containers-common has had it since 0.60.
OLD = [
    {"names": ["execve"], "action": "SCMP_ACT_ALLOW"},
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
        ("{}", "it has no defaultAction"),
        ('{"ociVersion": "1.0.2"}', "it is a config.json"),
        ('{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}', "it is a config.json"),
    ],
)
def test_no_profile(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "base.json").write_text(text)
    done = command("seccomp", "--base", tmp_path / "base.json")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert words in done.stderr


def profile(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    start = {"names": ["execve"], "action": "SCMP_ACT_ALLOW"}
    return {**PROFILE, "syscalls": [start, *rules], **changes}


ACTION = "action is none of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO"
READ = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (profile(defaultAction="SCMP_ACT_KILLED"), "defaultAction is none of SCMP_ACT_ALLOW"),
        (profile(defaultAction=[]), "defaultAction is none of"),
        (profile(architectures=["X86_64"]), "architectures aren't a list of names that begin with"),
        (profile(architectures="SCMP_ARCH_X86_64"), "architectures aren't a list"),
        (profile(archMap=[{"architecture": "SCMP_ARCH_X86_64"}]), "both architectures and archMap"),
        (profile(architectures=[], archMap={}), "archMap isn't a list of objects"),
        (profile(architectures=None, archMap=[{}]), "archMap isn't a list of objects"),
        (profile({"names": ["read"]}), f"syscalls[1]: its {ACTION}"),
        (profile({**READ, "action": "ALLOW"}), ACTION),
        (profile({**READ, "action": {}}), ACTION),
        (profile(READ, {"action": "SCMP_ACT_ALLOW"}), "syscalls[2]: it has no names"),
        (profile({**READ, "names": "bpf"}), "it has no names, which are a list"),
        (profile({**READ, "names": [1]}), "it has no names, which are a list"),
        (profile({**READ, "name": "write"}), "it has both name and names"),
        (profile({**READ, "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}), "its args"),
        (profile({**READ, "args": [{"index": 0, "value": 0}]}), "its args"),
        (profile({**READ, "args": {}}), "its args"),
        (profile({**READ, "includes": ["CAP_BPF"]}), "its includes isn't an object"),
        (profile({**READ, "excludes": {"caps": "CAP_BPF"}}), "its excludes isn't an object"),
        (profile(7), "syscalls[1] isn't a JSON object"),  # type: ignore[arg-type]
        (profile(syscalls=[READ]), "no container can start with it, because no rule in it allows"),
        (profile(syscalls=None), "no container can start"),
        (
            profile(syscalls=[{**READ, "names": ["execve"], "action": "SCMP_ACT_ERRNO"}]),
            "can start",
        ),
    ],
)
def test_what_no_engine_takes(given: dict[str, Any], words: str) -> None:
    (fault,) = faults(given)
    assert words in fault
    with pytest.raises(ValueError, match=r"."):
        check(given)


def test_all_faults_at_once() -> None:
    assert len(faults({"syscalls": [{}, 1, {"names": ["read"], "action": "x"}]})) == 5


@pytest.mark.parametrize(
    "given",
    [
        profile(),
        profile(READ, architectures=None, archMap=[{"architecture": "SCMP_ARCH_X86_64"}]),
        profile({"name": "read", "action": "SCMP_ACT_LOG", "args": None, "includes": {}}),
        profile({**READ, "args": [{"index": 5, "value": 2**64 - 1, "op": "SCMP_CMP_MASKED_EQ"}]}),
        profile({**READ, "includes": {"minKernel": "4.8", "arches": ["amd64"]}, "errnoRet": 1}),
        # What is allowed unless a rule refuses it.
        {"defaultAction": "SCMP_ACT_ALLOW"},
        {"defaultAction": "SCMP_ACT_LOG", "syscalls": None, "flags": ["SECCOMP_FILTER_FLAG_LOG"]},
    ],
)
def test_what_engines_take(given: dict[str, Any]) -> None:
    assert faults(given) == []
    assert in_force({"syscalls": allow_bpf(given)["syscalls"][-3:]}, "CAP_BPF")


def test_an_older_rule_about_bpf_alone() -> None:
    """With its rule left in, libseccomp would be given two actions for one call."""
    changed = allow_bpf(profile({"name": "bpf", "action": "SCMP_ACT_ERRNO"}))
    assert [rule for rule in changed["syscalls"] if rule.get("name") == "bpf"] == []


def test_names_that_nobody_knows(tmp_path: Path) -> None:
    """They are kept: a newer host's libseccomp may know them."""
    base = tmp_path / "base.json"
    made_up = [f"no_such_call_{number}" for number in range(7)]
    base.write_text(json.dumps(profile({**READ, "names": ["read", *made_up, "no\n"]})))
    done = command("seccomp", "--base", base)
    assert done.returncode == DONE
    assert json.loads(done.stdout) == allow_bpf(json.loads(base.read_text()))
    assert done.stderr == (
        f"note: {base}: this host's libseccomp knows no system call "
        f"{', '.join(map(quote, made_up[:5]))} and 3 more; a runtime with the same release of it "
        "skips these names\n"
    )
    assert unknown(["read", "bpf", "olduname", "uretprobe", "no_such_call"]) == [
        *(["uretprobe"] if unknown(["uretprobe"]) else []),
        "no_such_call",
    ]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container_starts_with_it(world: World, runtime: Runtime, tmp_path: Path) -> None:
    """Also with a name that this host's libseccomp doesn't know."""
    base, changed = tmp_path / "base.json", tmp_path / "changed.json"
    engines = json.loads(world.seccomp.read_text())
    engines["syscalls"].append({"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"})
    base.write_text(json.dumps(engines))
    assert command("seccomp", "--base", base, "--output", changed).returncode == DONE
    done = world.run(runtime, f"--security-opt=seccomp={changed}", command=["true"])
    assert done.returncode == 0, done.stderr


def test_it_may_be_written_over_its_base(tmp_path: Path) -> None:
    base = tmp_path / "seccomp.json"
    base.write_text(json.dumps({**PROFILE, "syscalls": OLD}))
    done = command("seccomp", "--base", base, "--output", base)
    assert (done.returncode, done.stdout) == (DONE, f"write {base} (0644)\n")
    assert json.loads(base.read_text()) == allow_bpf({**PROFILE, "syscalls": OLD})
    again = command("seccomp", "--base", base, "--output", base)
    assert (again.returncode, again.stdout) == (DONE, "")
