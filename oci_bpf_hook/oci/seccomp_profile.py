"""Says what is wrong with a file that should be an engine's seccomp profile.

The form is the one of containers-common and moby (their seccomp.json, type Seccomp), which the
engine turns into a container's linux.seccomp.  An engine with a broken profile starts no container
at all, so a file that is something else is refused before anything is made of it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

# seccomp(2)'s actions, by libseccomp's names.
_ALLOWING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE")
_ACTIONS = (
    *(*_ALLOWING, "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"),
    *("SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"),
)
_COMPARISONS = {f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")}
_ARCHITECTURE = "SCMP_ARCH_"
_CONFIG = (
    "it is a config.json, whose filter an engine has made for one container; give the profile from "
    "which engines make it"
)
# What every container's first program is started with.
_START = "execve"


def faults(profile: object) -> list[str]:
    """What is wrong with `profile`, in parts of sentences; [] if an engine takes it."""
    if not isinstance(profile, dict):
        return ["it isn't a JSON object"]
    if "ociVersion" in profile or "linux" in profile:
        return [_CONFIG]
    found = [*_actions(profile), *_architectures(profile), *_rules(profile)]
    return found or [*_start(profile)]


def check(profile: object) -> "dict[str, Any]":
    """The `profile` if an engine takes it.  Raises ValueError with all that is wrong with it."""
    found = faults(profile)
    if found or not isinstance(profile, dict):
        raise ValueError("; ".join(found))
    return profile


def names_in(profile: "Mapping[str, Any]") -> "Iterator[str]":
    """The names of system calls in a `profile` without faults; a name can come several times."""
    for rule in _list(profile, "syscalls"):
        yield from _names(rule)


def _actions(profile: "Mapping[str, Any]") -> "Iterator[str]":
    if "defaultAction" not in profile:
        yield "it has no defaultAction, which says what becomes of all other system calls"
    elif profile["defaultAction"] not in _ACTIONS:
        yield f"defaultAction is none of {', '.join(sorted(_ACTIONS))}"


def _architectures(profile: "Mapping[str, Any]") -> "Iterator[str]":
    plain, mapped = profile.get("architectures"), profile.get("archMap")
    if plain and mapped:
        yield "it has both architectures and archMap, of which engines take only one"
    if not _are_architectures(plain):
        yield f"its architectures aren't a list of names that begin with {_ARCHITECTURE}"
    if mapped is not None and not (
        isinstance(mapped, list)
        and all(
            isinstance(one, dict)
            and _are_architectures([one.get("architecture")])
            and _are_architectures(one.get("subArchitectures"))
            for one in mapped
        )
    ):
        yield "its archMap isn't a list of objects with architecture and subArchitectures"


def _are_architectures(found: object) -> bool:
    return found is None or (
        isinstance(found, list)
        and all(isinstance(one, str) and one.startswith(_ARCHITECTURE) for one in found)
    )


def _rules(profile: "Mapping[str, Any]") -> "Iterator[str]":
    rules = profile.get("syscalls")
    if rules is not None and not isinstance(rules, list):
        yield "its syscalls aren't a list of rules"
        return
    for number, rule in enumerate(rules or ()):
        if not isinstance(rule, dict):
            yield f"syscalls[{number}] isn't a JSON object"
            continue
        yield from (f"syscalls[{number}]: {text}" for text in _rule(rule))


def _rule(rule: "Mapping[str, Any]") -> "Iterator[str]":
    names = rule.get("names")
    if rule.get("name") and names:
        yield "it has both name and names, of which engines take only one"
    elif not _is_list_of_names(names if names is not None else [rule.get("name")]):
        yield "it has no names, which are a list of system calls"
    if rule.get("action") not in _ACTIONS:
        yield f"its action is none of {', '.join(sorted(_ACTIONS))}"
    arguments = rule.get("args")
    if arguments is not None and not (
        isinstance(arguments, list) and all(map(_is_comparison, arguments))
    ):
        yield "its args aren't a list of comparisons, each with index, value and op"
    for key in ("includes", "excludes"):
        if rule.get(key) is not None and not _is_condition(rule[key]):
            yield f"its {key} isn't an object with lists of caps and arches"


def _is_list_of_names(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(one, str) and one for one in found)


def _is_comparison(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    index, value = found.get("index", 0), found.get("value", 0)
    return (
        all(type(one) is int for one in (index, value))
        and 0 <= index < 6
        and 0 <= value < 1 << 64
        and found.get("op") in _COMPARISONS
    )


def _is_condition(found: object) -> bool:
    return isinstance(found, dict) and all(
        found.get(key) is None or _is_list_of_names(found[key]) for key in ("caps", "arches")
    )


def _start(profile: "Mapping[str, Any]") -> "Iterator[str]":
    if profile["defaultAction"] not in _ALLOWING and not any(
        rule["action"] in _ALLOWING and _START in _names(rule)
        for rule in _list(profile, "syscalls")
    ):
        yield f"no container can start with it, because no rule in it allows {_START}(2)"


def _names(rule: "Mapping[str, Any]") -> "list[str]":
    """The system calls that a rule is about; in older profiles it is about one, its `name`."""
    return [rule["name"]] if rule.get("name") else _list(rule, "names")


def _list(of: "Mapping[str, Any]", key: str) -> "list[Any]":
    return of.get(key) or []
