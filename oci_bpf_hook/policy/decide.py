"""Applies the administrator's policy to a request: finds the rule that decides, and its ceiling.

The policy comes in its compiled form (`compiled`), in which names are masks and users are numbers;
`store.file` reads and checks the file that people write.  Who asks is a `subject.Subject`.
"""

from ..bpf.names import KINDS, Enum
from ..bpf.type_facts import beyond_confined
from ..delegation.annotations import MODE, Request
from ..delegation.masks import Grant
from ..errors import REFUSED, HookError, Problem, quote
from ..values import Value
from .compiled import Compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .compiled import Rule
    from .subject import Subject


def holds(rule: "Rule", subject: "Subject") -> bool:
    """Whether everything in the rule's match holds for `subject`.

    A rule that denies may match by attributes that the requester only claims; a rule that allows
    never holds by one of these.
    """
    if rule["deny"] is None and not subject.claimed.isdisjoint(rule["match"]):
        return False
    for attribute, wanted in rule["match"].items():
        value = getattr(subject, attribute)
        if attribute == "annotations":
            if not isinstance(value, dict) or not all(
                key in value and _any_glob(globs, value[key]) for key, globs in wanted.items()
            ):
                return False
        elif isinstance(wanted, bool):
            if value is not wanted:
                return False
        elif isinstance(value, tuple):
            if not any(one in wanted for one in value):
                return False
        elif isinstance(value, str):
            if not _any_glob(wanted, value):
                return False
        elif value is None or value not in wanted:
            return False
    return True


def _any_glob(globs: "Sequence[str]", text: str) -> bool:
    return any(glob(pattern, text) for pattern in globs)


def glob(pattern: str, text: str) -> bool:
    """Whether `text` matches `pattern`, in which `*` is any text and `?` any one character.

    The number of steps is at most the product of both lengths.
    """
    at = in_pattern = 0
    star = back = -1
    while at < len(text):
        if in_pattern < len(pattern) and pattern[in_pattern] == "*":
            star, back = in_pattern, at
            in_pattern += 1
        elif in_pattern < len(pattern) and pattern[in_pattern] in ("?", text[at]):
            in_pattern += 1
            at += 1
        elif star >= 0:
            back += 1
            in_pattern, at = star + 1, back
        else:
            return False
    return not pattern[in_pattern:].strip("*")


class Decision(Value):
    """How a request was decided: the `rule`, what it gives, and the items that it `trimmed`.

    If the grant is `confined`, the guard has to hold its tokens from the first one on
    (`guard.confine`); if not, the administrator trusts the container with the kernel.  `match` is
    the rule's.
    """

    __slots__ = ("confined", "grant", "match", "rule", "trimmed")
    rule: str
    match: "Mapping[str, Any]"
    grant: Grant
    confined: bool
    trimmed: tuple[str, ...]


def decide(
    policy: Compiled,
    subject: "Subject",
    request: Request,
    wanted: Grant,
    enums: "Mapping[str, Enum]",
) -> Decision:
    """What `subject` gets of `wanted`, the masks that its `request` means on the kernel of `enums`.

    A CDI device is a file of the administrator's, so only rules that match devices decide about it.
    If the policy has none of these, the device gets its profile, as if a confined rule allowed
    exactly that.  Raises HookError (REFUSED) with each item that is refused.
    """
    device = subject.cdi
    for rule in policy.rules(subject):
        if (device is None or "cdi" in rule["match"]) and holds(rule, subject):
            return _apply(rule, subject, request, wanted, enums)
    if device is not None and "cdi" not in policy.uses:
        implicit = _implicit(f"cdi:{device}", wanted.masks)
        return _apply(implicit, subject, request, wanted, enums)
    from .refusal import advice

    problem = Problem(
        "no rule of the policy is for this container", hint=advice(wanted, subject, enums)
    )
    raise HookError(REFUSED, problem)


def _implicit(name: str, masks: "Mapping[str, int]") -> "Rule":
    """A confined rule that matches everybody and allows these `masks`, and the shim."""
    rule: Rule = {"name": name, "match": {}, "masks": masks, "paths": None, "modes": None}
    return {**rule, "confined": True, "record": False, "shim": True, "trim": False, "deny": None}


def everything(policy: Compiled, subject: "Subject", path: str, mode: int = MODE) -> Decision:
    """The decision that gives `subject` all that the policy allows, for a recording by root.

    `path` and `mode` are those of the mount.  Raises HookError (REFUSED) if the policy allows
    nothing.
    """
    for rule in policy.rules(subject):
        if holds(rule, subject):
            return _ceiling(rule, path, mode, policy.enums)
    raise HookError(REFUSED, "no rule of the policy is for this recording")


def _allowed(rule: "Rule", enums: "Mapping[str, Enum]") -> dict[str, int]:
    """The masks that `rule` gives at the most; a confined rule gives less than it lists."""
    masks: dict[str, int] = rule["masks"]
    less = beyond_confined(masks, enums) if rule["confined"] else {}
    return {option: mask & ~less.get(option, 0) for option, mask in masks.items()}


def _ceiling(rule: "Rule", path: str, mode: int, enums: "Mapping[str, Enum]") -> Decision:
    """The decision that gives all that `rule` allows.  Raises HookError (REFUSED)."""
    name = rule["name"]
    problems: list[Problem] = []
    masks = {option: mask for option, mask in _allowed(rule, enums).items() if mask}
    if rule["deny"] is not None:
        problems.append(Problem(f"rule {quote(name)} denies it: {rule['deny']}"))
    else:
        problems += _misplaced(rule, path, mode)
        if not masks:
            problems.append(Problem(f"rule {quote(name)} allows nothing"))
    if problems:
        raise HookError(REFUSED, *problems, rule=name)
    grant = Grant(masks=masks, path=path, mode=mode)
    return _decision(rule, grant)


def _misplaced(rule: "Rule", path: str, mode: int) -> list[Problem]:
    """The problems with a mount's `path` and `mode` if `rule` doesn't allow them."""
    problems: list[Problem] = []
    name = rule["name"]
    if rule["paths"] is not None and not _any_glob(rule["paths"], path):
        text = f"rule {quote(name)} doesn't allow the path {quote(path)}"
        problems.append(Problem(text, key="path", item=path))
    if rule["modes"] is not None and mode not in rule["modes"]:
        text = f"rule {quote(name)} doesn't allow the mode {mode:04o}"
        problems.append(Problem(text, key="mode", item=f"{mode:04o}"))
    return problems


def _not_allowed(rule: "Rule", request: Request) -> list[Problem]:
    """The problems with what `request` asks for besides masks, if `rule` doesn't allow that."""
    problems: list[Problem] = []
    for key, item, what in (
        ("record", request.record, "recording"),
        ("shim", "true" if request.shim else "", "the shim"),
    ):
        if item and not rule[key]:
            text = f"rule {quote(rule['name'])} doesn't allow {what}"
            hint = f"to allow it, an administrator adds {key}: true to its allow"
            problems.append(Problem(text, key=key, item=item, hint=hint))
    return problems


def _apply(
    rule: "Rule",
    subject: "Subject",
    request: Request,
    wanted: Grant,
    enums: "Mapping[str, Enum]",
) -> Decision:
    name = rule["name"]
    if rule["deny"] is not None:
        raise HookError(REFUSED, f"rule {quote(name)} denies it: {rule['deny']}", rule=name)
    options = _not_allowed(rule, request)
    if request.record:
        if options:
            raise HookError(REFUSED, *options, rule=name)
        return _ceiling(rule, wanted.path, wanted.mode, enums)
    allowed = _allowed(rule, enums)
    granted: dict[str, int] = {}
    beyond = False
    for kind in KINDS:
        mask = wanted.masks.get(kind.option, 0)
        if mask & allowed.get(kind.option, 0):
            granted[kind.option] = mask & allowed[kind.option]
        beyond = beyond or granted.get(kind.option, 0) != mask
    excess: tuple[tuple[str, Problem], ...] = ()
    if beyond:
        from .refusal import refused_items

        excess = refused_items(rule, request, wanted, granted, enums)
    problems = [*_misplaced(rule, wanted.path, wanted.mode), *options]
    if excess and not rule["trim"]:
        problems += [why for _, why in excess]
    elif excess and not granted:
        problems.append(Problem(f"rule {quote(name)} allows nothing of what is asked for"))
    if problems:
        from .refusal import advice

        raise HookError(
            REFUSED, *problems, rule=name, hint=advice(wanted, subject, enums, rule["match"])
        )
    grant = Grant(masks=granted, path=wanted.path, mode=wanted.mode)
    return _decision(rule, grant, tuple(item for item, _ in excess))


def _decision(rule: "Rule", grant: Grant, trimmed: tuple[str, ...] = ()) -> Decision:
    return Decision(
        rule=rule["name"],
        match=rule["match"],
        grant=grant,
        confined=rule["confined"],
        trimmed=trimmed,
    )
