"""Adds to a config.json what a container needs to get and use a token, and removes it again.

These are the hook, annotations, capabilities, a seccomp rule for bpf(2), libbpf's variable, and the
shim.
Each addition is noted in an annotation of the file itself.  `undo` removes what is noted and
nothing else, even if other parts of the file have changed since.
"""

from ..delegation.annotations import PATH
from .cdi import OPTIONS, PLACE, PRELOAD, TOKEN_PATH
from .seccomp import ALLOW, rules_of, without_bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    # A path into the file: keys of mappings.
    Path = tuple[str, ...] | list[str]

# The annotation for the notes; it isn't below io.bpffs., where the hook refuses unknown keys.
NOTES = "io.oci-bpf-hook.injected"
_SETS = ("bounding", "effective", "permitted")
# A process of another user than root keeps only the capabilities in these sets.
_KEPT_SETS = ("inheritable", "ambient")
_SECCOMP = ("linux", "seccomp", "syscalls")
_NOTIFY = "SCMP_ACT_NOTIFY"


def bind(library: str) -> "dict[str, Any]":
    """The mount, of a config.json, with which a container has the shim that is `library` here."""
    return {"destination": PLACE, "type": "bind", "source": library, "options": [*OPTIONS]}


def has_user_namespace(config: "Mapping[str, Any]") -> bool:
    """Whether the container has a user namespace other than its runtime's."""
    namespaces = config.get("linux", {}).get("namespaces", [])
    return any(one.get("type") == "user" for one in namespaces)


class Additions:
    """Adds to `config`, a decoded config.json, and notes each addition.

    Nothing is added that is there already.  `note` writes the notes, and has to be called last.
    """

    def __init__(self, config: "dict[str, Any]") -> None:
        self._config = config
        self._notes: list[list[Any]] = []

    def hook(self, hook: "Mapping[str, Any]") -> None:
        """Add `hook` to the createRuntime hooks."""
        self._append(("hooks", "createRuntime"), dict(hook))

    def annotations(self, annotations: "Mapping[str, str]") -> None:
        """Set the `annotations`, instead of others with the same keys."""
        for key, text in annotations.items():
            self._set(("annotations",), key, text)

    def capabilities(self, names: "Iterable[str]") -> None:
        """Add the capabilities `names`, without CAP_, to each set that the process needs."""
        process = self._config.get("process", {})
        root = process.get("user", {}).get("uid", 0) == 0
        for kind in _SETS if root else (*_SETS, *_KEPT_SETS):
            for name in names:
                self._append(("process", "capabilities", kind), f"CAP_{name}")

    def token_path(self, path: str) -> None:
        """Tell libbpf the `path`, unless it looks there anyway or is told another path already."""
        environment = self._config.get("process", {}).get("env", [])
        if path != PATH and not any(one.startswith(f"{TOKEN_PATH}=") for one in environment):
            self._append(("process", "env"), f"{TOKEN_PATH}={path}")

    def shim(self, library: str) -> None:
        """Mount the `library` of the host, read-only, and have it preloaded after all others."""
        self._append(("mounts",), bind(library))
        environment = self._container(("process", "env"), [])
        name = f"{PRELOAD}="
        there = [at for at, one in enumerate(environment) if one.startswith(name)]
        if not there:
            self._append(("process", "env"), f"{name}{PLACE}")
            return
        # Of several variables libc takes the last.
        before = environment[there[-1]]
        if PLACE not in before[len(name) :].replace(":", " ").split():
            after = f"{before}:{PLACE}" if before != name else f"{name}{PLACE}"
            environment[there[-1]] = after
            self._notes.append(["changed", ["process", "env"], after, before])

    def bpf(self) -> None:
        """Let bpf(2) through the seccomp filter, if there is one.

        A filter that hands bpf(2) to a listener, as a recording's does, is left as it is.  Raises
        ValueError if the filter has no list of rules.
        """
        seccomp = self._config.get("linux", {}).get("seccomp")
        if not seccomp:
            return
        rules = list(rules_of(seccomp))
        found = [(at, rule) for at, rule in enumerate(rules) if "bpf" in rule.get("names", [])]
        if any(rule["action"] == _NOTIFY for _, rule in found):
            return
        allowed = [rule["action"] == ALLOW["action"] and not rule.get("args") for _, rule in found]
        if all(allowed) and (found or seccomp.get("defaultAction") == ALLOW["action"]):
            return
        for at, rule in reversed(found):
            self._notes.append(["rule", at, rule])
            rest = without_bpf(rule)
            rules[at : at + 1] = [rest] if rest else []
        seccomp["syscalls"] = rules
        self._append(_SECCOMP, ALLOW)

    def note(self) -> None:
        """Write the notes into `config`, if anything was added."""
        if self._notes:
            from json import dumps

            self._container(("annotations",), {})
            self._config["annotations"][NOTES] = dumps(self._notes, separators=(",", ":"))

    def _container(self, path: "Path", empty: "Any") -> "Any":
        """What is at `path`.  Missing mappings on the way are made, and `empty` at its end."""
        inner: Any = self._config
        for number, key in enumerate(path, 1):
            if inner.get(key) is None:
                inner[key] = empty if number == len(path) else {}
                self._notes.append(["made", path[:number]])
            inner = inner[key]
        return inner

    def _append(self, path: "Path", item: "Any") -> None:
        items = self._container(path, [])
        if item not in items:
            items.append(item)
            self._notes.append(["added", path, item])

    def _set(self, path: "Path", key: str, value: str) -> None:
        mapping = self._container(path, {})
        if mapping.get(key) != value:
            self._notes.append(["set", [*path, key], value, mapping.get(key)])
            mapping[key] = value


def undo(config: "dict[str, Any]") -> None:
    """Remove from `config` what its notes say was added, as far as it is still there.

    Raises ValueError if the notes can't be understood.
    """
    from json import loads  # Imported here, since the hook at precreate removes nothing.

    annotations = config.get("annotations") or {}
    if NOTES not in annotations:
        return
    try:
        notes = loads(annotations.pop(NOTES))
        for note in reversed(notes):
            _undo(config, *note)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
        raise ValueError(f"its annotation {NOTES} isn't what was written there") from None


def _undo(config: "dict[str, Any]", what: str, where: "Any", *values: "Any") -> None:
    if what == "rule":
        _put_back(config["linux"]["seccomp"]["syscalls"], where, values[0])
        return
    *above, key = where
    inner: Any = config
    for name in above:
        inner = inner.get(name) or {}
    there = inner.get(key)
    if what == "made" and not there:
        inner.pop(key, None)
    elif what == "added" and there and values[0] in there:
        # Of equal items the last one is removed, because ours was added after the others.
        there.reverse()
        there.remove(values[0])
        there.reverse()
    elif what == "changed" and there and values[0] in there:
        there[there.index(values[0])] = values[1]
    elif what == "set" and there == values[0]:
        if values[1] is None:
            del inner[key]
        else:
            inner[key] = values[1]


def _put_back(rules: "list[dict[str, Any]]", at: int, rule: "dict[str, Any]") -> None:
    """Restore `rule`, which had bpf among its names, at its place `at`.

    If the rest of it isn't there any more, a rule for bpf alone is inserted.
    """
    rest = without_bpf(rule)
    if rest is not None and rules[at : at + 1] == [rest]:
        rules[at] = rule
    else:
        rules.insert(at, {**rule, "names": ["bpf"]})
