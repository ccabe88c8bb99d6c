"""bpf(2) let through by seccomp for whoever has CAP_BPF: in an engine's profile, in a config.json.

A profile of containers-common's or moby's has rules with conditions on capabilities, of which the
engine makes the rules that are in force; a config.json has only these.  Older profiles, Debian
12's among them, ask for CAP_SYS_ADMIN, and then a token's holder gets EPERM from every bpf(2).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Where podman and CRI-O have theirs: the administrator's first.
BASES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
ALLOW = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW"}
_REFUSE = {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM"}
_CAPABILITIES = ["CAP_BPF", "CAP_SYS_ADMIN"]


def allow_bpf(profile: "Mapping[str, Any]") -> "dict[str, Any]":
    """The engine's `profile`, changed to let bpf(2) through with CAP_BPF or CAP_SYS_ADMIN.

    Raises ValueError if it is none.
    """
    # Out of every rule first: of two rules with different actions libseccomp takes neither.
    rules = [rest for rule in rules_of(profile) if (rest := without_bpf(rule))]
    first, second = _CAPABILITIES[:1], _CAPABILITIES[1:]
    rules += [
        {**ALLOW, "includes": {"caps": first}},
        {**ALLOW, "includes": {"caps": second}, "excludes": {"caps": first}},
        {**_REFUSE, "excludes": {"caps": _CAPABILITIES}},
    ]
    return {**profile, "syscalls": rules}


def rules_of(profile: "Mapping[str, Any]") -> "Sequence[dict[str, Any]]":
    """The rules of a profile or of linux.seccomp.  Raises ValueError if these are none."""
    rules = profile.get("syscalls", []) if isinstance(profile, dict) else None
    if not isinstance(rules, list) or not all(
        isinstance(rule, dict) and isinstance(rule.get("names", []), list) for rule in rules
    ):
        raise ValueError("it has no list of rules, syscalls, with the names of each")
    return rules


def without_bpf(rule: "Mapping[str, Any]") -> "dict[str, Any] | None":
    """The rule for all that it names but bpf; None where that is nothing."""
    names = [name for name in rule.get("names", []) if name != "bpf"]
    if names or "names" not in rule:
        return {**rule, "names": names} if names else dict(rule)
    return None
