"""Changes an engine's seccomp profile so that bpf(2) is allowed to a process with CAP_BPF.

The profiles of containers-common and moby have rules with conditions on capabilities, from which
the engine makes the rules in a config.json.  Older profiles, such as Debian 12's, require
CAP_SYS_ADMIN for bpf(2), so that a process with a token and only CAP_BPF gets EPERM for each call.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

# Where podman and CRI-O look for their profile; the administrator's comes first.
BASES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
ALLOW = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW"}
_REFUSE = {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM"}
_CAPABILITIES = ["CAP_BPF", "CAP_SYS_ADMIN"]


def allow_bpf(profile: "Mapping[str, Any]") -> "dict[str, Any]":
    """The engine's `profile`, changed to let bpf(2) through with CAP_BPF or CAP_SYS_ADMIN.

    Raises ValueError if `profile` isn't a seccomp profile.
    """
    # bpf is first removed from every rule, since libseccomp refuses two actions for one call.
    rules = [rest for rule in rules_of(profile) if (rest := without_bpf(rule))]
    first, second = _CAPABILITIES[:1], _CAPABILITIES[1:]
    rules += [
        {**ALLOW, "includes": {"caps": first}},
        {**ALLOW, "includes": {"caps": second}, "excludes": {"caps": first}},
        {**_REFUSE, "excludes": {"caps": _CAPABILITIES}},
    ]
    return {**profile, "syscalls": rules}


def rules_of(profile: "Mapping[str, Any]") -> "Sequence[dict[str, Any]]":
    """The rules of a profile or of linux.seccomp.  Raises ValueError if it has no list of rules."""
    rules = profile.get("syscalls") if isinstance(profile, dict) else {}
    if rules is None:  # As Go writes an empty list.
        return []
    if not isinstance(rules, list) or not all(
        isinstance(rule, dict) and isinstance(rule.get("names", []), list) for rule in rules
    ):
        raise ValueError("its syscalls aren't a list of rules that each have a list of names")
    return rules


def without_bpf(rule: "Mapping[str, Any]") -> "dict[str, Any] | None":
    """`rule` without bpf among its names; None if no name is left.

    In older profiles a rule is about one system call, its `name`.
    """
    if rule.get("name") == "bpf":
        return None
    names = [name for name in rule.get("names", []) if name != "bpf"]
    if names or "names" not in rule:
        return {**rule, "names": names} if names else dict(rule)
    return None
