"""Reads the policy that people write, and compiles it for the hook.

It reads the YAML with the place of each value, checks the JSON Schema, and then what a schema can't
express.  All faults are reported at once, with file, line and column.  This is slow, and the hook
does it only if the file has changed since it was compiled (`cache`).
"""

import grp
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jsonschema
import yaml

from ...bpf.names import KINDS, Enum, Kind
from ...delegation.annotations import parse_item, split
from ...delegation.masks import bits
from ...errors import BAD_POLICY, HookError, quote
from ...kernel import enums as kernel
from ...paths import AUDIT_TO
from ...resources import schema
from ...text.places import Fault, Place
from ...text.yaml_places import at, parse
from ...values import Value
from .. import doubts

_HINTS = {
    "service_account": "; no engine tells a pod's service account, so match the pod's namespace, "
    "and the annotation bpffs.io/service-account if contrib/kubernetes/service-account.yaml is in "
    "force",
}
# The largest id of a user or a group; the next number, (uid_t)-1, stands for no id.
_LAST_ID = (1 << 32) - 2


class Loaded(Value):
    """A valid policy, ready for `policy.pack`, and what is doubtful about it (`warnings`).

    `listed` are the rules that have lists of their own, with or without profiles.
    """

    __slots__ = ("header", "listed", "rules", "warnings")
    header: dict[str, Any]
    rules: list[dict[str, Any]]
    listed: tuple[dict[str, Any], ...]
    warnings: tuple[Fault, ...]


def load(text: bytes, name: str) -> Loaded:
    """The policy in the YAML `text` of the file that messages call `name`.

    Raises HookError (BAD_POLICY) with every fault.
    """
    faults: list[Fault] = []
    data, places = parse(text, faults)
    header: dict[str, Any] = {}
    rules: list[dict[str, Any]] = []
    checker = _Checker(places, faults)
    if not faults:
        checker.schema(data)
        header, rules = checker.compile(data)
    if faults:
        lines = sorted(faults, key=lambda fault: (fault.line, fault.column))
        raise HookError(
            BAD_POLICY, *(f"{name}:{fault.line}:{fault.column}: {fault.text}" for fault in lines)
        )
    return Loaded(
        header=header,
        rules=rules,
        listed=tuple(checker.listed),
        warnings=tuple(checker.warnings),
    )


# --------------------------------------------------------------------- the checks


class _Checker:
    """Finds what is wrong with a policy's data, and compiles what is right."""

    def __init__(self, places: Mapping[Place, yaml.Mark], faults: list[Fault]) -> None:
        self._places = places
        self._faults = faults
        self.warnings: list[Fault] = []
        self.listed: list[dict[str, Any]] = []
        # The rules, profiles and keys of the file that don't fit the schema.  The others are still
        # checked further.
        self._malformed: set[Place] = set()
        table = kernel.table()
        # Values are the kernel's ABI, so a name has the same value in this kernel and in the table.
        self._enums = _union(table.enums(KINDS), kernel.enums(KINDS))

    def schema(self, data: Any) -> None:
        """Note where `data` doesn't fit the schema."""
        validator = jsonschema.Draft202012Validator(schema("policy"))
        for error in sorted(validator.iter_errors(data), key=lambda error: list(error.path)):
            # A oneOf also fails if the value isn't a mapping at all, which another fault reports.
            if error.validator != "oneOf" or isinstance(error.instance, dict):
                self._schema_fault(error)

    def _schema_fault(self, error: jsonschema.ValidationError) -> None:
        # If there are alternatives, the one that fits best is most likely the one meant.
        deepest = jsonschema.exceptions.best_match([error]) or error
        place = tuple(deepest.absolute_path)
        self._malformed.add(place[:2])
        if "propertyNames" in deepest.absolute_schema_path:
            place = (*place, str(deepest.instance), "key")
        if deepest.validator == "additionalProperties":
            assert isinstance(deepest.instance, dict)
            known: dict[str, Any] = _schema_of(deepest).get("properties", {})
            for key in map(str, deepest.instance.keys() - known.keys()):
                hint = _HINTS.get(key) or _elsewhere(key) or _near(key, known)
                self._fault((*place, key, "key"), f"{quote(key)} isn't a key here{hint}")
            return
        self._fault(place, _sentence(deepest))

    def _fault(self, place: Place, text: str) -> None:
        self._faults.append(at(self._mark(place), text))

    def _warn(self, place: Place, text: str) -> None:
        self.warnings.append(at(self._mark(place), text))

    def _mark(self, place: Place) -> yaml.Mark:
        while place and place not in self._places:
            place = place[:-1]
        return self._places[place]

    # -- the checks that a schema can't express, and the compiled form

    def compile(self, data: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The header and the rules of the compiled form."""
        if not self._malformed.isdisjoint([(), ("profiles",), ("rules",)]):
            return {}, []
        profiles = {
            name: {}
            if ("profiles", name) in self._malformed
            else self._lists(profile, ("profiles", name))
            for name, profile in data.get("profiles", {}).items()
        }
        engine = None if ("engine",) in self._malformed else data.get("engine")
        names: set[str] = set()
        rules = []
        for number, rule in enumerate(data["rules"]):
            place: Place = ("rules", number)
            if place in self._malformed:
                continue
            if rule["name"] in names:
                self._fault(
                    (*place, "name"), f"another rule already has the name {quote(rule['name'])}"
                )
            names.add(rule["name"])
            rules.append(self._rule(rule, place, profiles, engine))
        self._reached(rules)
        malformed = any(place[:1] == ("audit",) for place in self._malformed)
        audit = {} if malformed else data.get("audit", {})
        header = {
            "engine": engine,
            "image_annotations": data.get("image_annotations", False),
            "audit": {"to": audit.get("to", AUDIT_TO), "required": audit.get("required", True)},
            "profiles": profiles,
            "uses": sorted({attribute for rule in rules for attribute in rule["match"]}),
        }
        return header, rules

    def _rule(
        self,
        rule: dict[str, Any],
        place: Place,
        profiles: Mapping[str, dict[str, int]],
        engine: str | None,
    ) -> dict[str, Any]:
        match = {
            key: self._match(key, value, (*place, "match", key))
            for key, value in rule.get("match", {}).items()
        }
        allow = rule.get("allow", {})
        named = allow.get("profiles", [])
        for number, name in enumerate(named):
            if name not in profiles:
                where = (*place, "allow", "profiles", number)
                self._fault(where, f"there is no profile {quote(name)}{_near(name, profiles)}")
        sets = [profiles.get(name, {}) for name in named]
        for number, path in enumerate(paths := _as_list(allow.get("paths", []))):
            if path[0] not in "/*?" or "//" in path or path.endswith("/"):
                where = (*place, "allow", "paths", number)
                self._warn(
                    where,
                    f"no path matches {quote(path)}; a path begins with / and doesn't end with /",
                )
        modes = allow.get("modes")
        masks = self._lists(allow, (*place, "allow"), sets)
        if "allow" in rule:
            given = doubts.Given(allow=allow, masks=masks, profiles=profiles, enums=self._enums)
            for where, text in doubts.of(match, engine, given):
                self._warn((*place, *where), text)
        compiled = {
            "name": rule["name"],
            "match": match,
            "masks": masks,
            "paths": paths if "paths" in allow else None,
            "modes": [int(mode, 8) for mode in modes] if modes is not None else None,
            "confined": allow.get("confined", True),
            "record": allow.get("record", False),
            "shim": allow.get("shim", False),
            "trim": rule.get("on_excess") == "trim",
            "deny": " ".join(rule["deny"].split()) if "deny" in rule else None,
        }
        if any(allow.get(kind.option) for kind in KINDS):
            self.listed.append(compiled)
        return compiled

    def _match(self, key: str, value: Any, place: Place) -> Any:
        if key == "annotations":
            return {name: _as_list(globs) for name, globs in value.items()}
        if key in ("user", "group"):
            return [self._owner(key, owner, place) for owner in _as_list(value)]
        return value if isinstance(value, bool) else _as_list(value)

    def _owner(self, key: str, owner: str | int, place: Place) -> int:
        if isinstance(owner, int):
            return owner
        look: Callable[[str], int] = _uid if key == "user" else _gid
        try:
            found = look(owner)
        except (KeyError, ValueError):
            found = -1
        if not 0 <= found <= _LAST_ID:
            self._fault(
                place, f"this host has no {key} {quote(owner)}; name one that it has, or an id"
            )
        return found

    def _reached(self, rules: Sequence[Mapping[str, Any]]) -> None:
        taker = ""
        for number, rule in enumerate(rules):
            # A rule about CDI devices decides only about devices, and any other rule never does.
            if taker and "cdi" not in rule["match"]:
                self._warn(
                    ("rules", number),
                    f"this rule never decides, because rule {quote(taker)} before it matches each "
                    "request",
                )
                return
            if not rule["match"]:
                taker = rule["name"]

    def _lists(
        self, lists: Mapping[str, Any], place: Place, sets: Sequence[Mapping[str, int]] = ()
    ) -> dict[str, int]:
        # As in an annotation, an item with a "!" also takes away what profiles give.
        masks: dict[str, int] = {}
        for kind in KINDS:
            given = taken = 0
            for one in sets:
                given |= one.get(kind.option, 0)
            for number, text in enumerate(lists.get(kind.option, [])):
                mask, away = self._item(kind, text, (*place, kind.option, number))
                if away:
                    taken |= mask
                else:
                    given |= mask
            if given & ~taken:
                masks[kind.option] = given & ~taken
        return masks

    def _item(self, kind: Kind, text: str, place: Place) -> tuple[int, bool]:
        if len(split(text)) != 1:
            self._fault(place, f"{quote(text)} is more than one item; write them as a list")
            return 0, False
        plain, problem = parse_item(text.strip(), kind.what)
        away = plain.startswith("!")
        if problem:
            self._fault(place, f"{quote(text)} {problem}")
            return 0, away
        enum = self._enums[kind.option]
        mask = bits(plain.lstrip("!"), enum)
        if mask is None:
            near = _near(plain.lstrip("!"), enum.values)
            self._fault(place, f"no {kind.what} is called {quote(text)}{near}")
        return mask or 0, away


def _union(table: Mapping[str, Enum], running: Mapping[str, Enum]) -> dict[str, Enum]:
    return {
        option: Enum(enum.kind, {**enum.values, **running[option].values})
        for option, enum in table.items()
    }


def _elsewhere(key: str) -> str:
    """Where in a rule the `key` belongs, as the end of a sentence; "" if nowhere."""
    parts = schema("policy")["$defs"]
    found = (part for part in ("match", "allow") if key in parts[part]["properties"])
    return "".join(f"; it belongs in the {part} of a rule" for part in list(found)[:1])


def _near(word: str, known: Iterator[str] | Mapping[str, Any]) -> str:
    from ...similar import similar

    near = " or ".join(map(quote, similar(word, known)))
    return f"; did you mean {near}?" if near else ""


def _sentence(error: jsonschema.ValidationError) -> str:
    """What the schema's `error` means, for people."""
    value = quote(str(error.instance))
    if error.instance is None:
        value = "nothing"
    elif isinstance(error.instance, dict | list):
        value = "this"
    elif isinstance(error.instance, bool):
        # In YAML 1.1 yes, no, on and off mean true and false, too.
        value = f"a word without quotes that means {str(error.instance).lower()}"
    wanted: Any = error.validator_value
    match error.validator:
        case "required":
            missing = [key for key in wanted if key not in _instance(error)]
            return f"{', '.join(missing)} is missing here"
        case "enum":
            return f"{value} is not one of {', '.join(map(str, wanted))}"
        case "const":
            return f"{value} should be {wanted}"
        case "type":
            return f"{value} should be {_TYPES.get(str(wanted), wanted)}{_quotes(error)}"
        case "oneOf" if isinstance(error.instance, dict):
            both = {"allow", "deny"} <= error.instance.keys()
            return "a rule has either allow or deny" + (", not both" if both else "")
        case "minItems" | "minLength" | "minProperties":
            return "this is empty; leave it out, or fill it in"
        case "pattern" | "anyOf" | "minimum" | "maximum":
            form = _schema_of(error).get("description", wanted)
            return f"{value} should be {form}{_quotes(error)}"
        case _:
            return error.message


_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "boolean": "true or false",
}


def _quotes(error: jsonschema.ValidationError) -> str:
    meant = isinstance(error.instance, int) and error.validator in ("type", "anyOf")
    return "; if a text is meant, put it in quotes" if meant else ""


def _schema_of(error: jsonschema.ValidationError) -> dict[str, Any]:
    found: Any = error.schema
    return found if isinstance(found, dict) else {}


def _instance(error: jsonschema.ValidationError) -> dict[str, Any]:
    found: Any = error.instance
    return found if isinstance(found, dict) else {}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _uid(name: str) -> int:
    return int(name) if _is_number(name) else pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return int(name) if _is_number(name) else grp.getgrnam(name).gr_gid
