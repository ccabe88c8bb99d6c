"""The administrator's policy, as the hook applies it: which rule decides, and its ceiling.

The file that people write is read and checked elsewhere (`policyfile`); what comes here is
its compiled form (`compiled`), in which names are masks and users are numbers.

Whom a rule is asked about is a `subject.Subject`.
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

    from .compiled import Rule
    from .subject import Subject


def holds(rule: "Rule", subject: "Subject") -> bool:
    """Whether everything in the rule's match holds for `subject`.

    What is only claimed may cost a requester something, but give nothing.
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
    """Whether `text` is what `pattern` says: `*` any text, `?` any character, else itself.

    Takes at most the product of both lengths, whatever they are.
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
    """What came of a request: the rule that decided, what it gives, and what it took away.

    The tokens of a `confined` grant are to be the guard's, before there is any (`confine`);
    without it the administrator trusts the container with the kernel.
    """

    __slots__ = ("confined", "grant", "rule", "trimmed")
    rule: str
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
    """What `subject` gets of `wanted`, which is what its `request` means on this kernel.

    A CDI device is the administrator's own file: rules about annotations don't decide about it,
    and where none is about devices it has its profile, as if a confined rule allowed just that.

    Raises HookError (REFUSED) with every item that is refused.
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
    """A confined rule for whoever asks, which allows these `masks`."""
    rule: Rule = {"name": name, "match": {}, "masks": masks, "paths": None, "modes": None}
    return {**rule, "confined": True, "record": False, "trim": False, "deny": None}


def everything(policy: Compiled, subject: "Subject", path: str, mode: int = MODE) -> Decision:
    """All that `subject` may have at `path`, for a recording by the administrator.

    Raises HookError (REFUSED) where that is nothing.
    """
    for rule in policy.rules(subject):
        if holds(rule, subject):
            return _ceiling(rule, path, mode, policy.enums)
    raise HookError(REFUSED, "no rule of the policy is for this recording")


def _allowed(rule: "Rule", enums: "Mapping[str, Enum]") -> dict[str, int]:
    """The masks that `rule` gives at most, which is less than it lists where it is confined."""
    masks: dict[str, int] = rule["masks"]
    less = beyond_confined(masks, enums) if rule["confined"] else {}
    return {option: mask & ~less.get(option, 0) for option, mask in masks.items()}


def _ceiling(rule: "Rule", path: str, mode: int, enums: "Mapping[str, Enum]") -> Decision:
    """All that `rule` allows."""
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
    return Decision(rule=name, grant=grant, confined=rule["confined"], trimmed=())


def _misplaced(rule: "Rule", path: str, mode: int) -> list[Problem]:
    """What `rule` has against the place and the mode of a mount."""
    problems: list[Problem] = []
    name = rule["name"]
    if rule["paths"] is not None and not _any_glob(rule["paths"], path):
        text = f"rule {quote(name)} doesn't allow the path {quote(path)}"
        problems.append(Problem(text, key="path", item=path))
    if rule["modes"] is not None and mode not in rule["modes"]:
        text = f"rule {quote(name)} doesn't allow the mode {mode:04o}"
        problems.append(Problem(text, key="mode", item=f"{mode:04o}"))
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
    if request.record:
        if not rule["record"]:
            problem = Problem(
                f"rule {quote(name)} doesn't allow recording",
                key="record",
                item=request.record,
                hint="to allow it, an administrator adds record: true to its allow",
            )
            raise HookError(REFUSED, problem, rule=name)
        return _ceiling(rule, wanted.path, wanted.mode, enums)
    allowed = _allowed(rule, enums)
    granted: dict[str, int] = {}
    beyond = False
    for kind in KINDS:
        mask = wanted.masks.get(kind.option, 0)
        if mask & allowed.get(kind.option, 0):
            granted[kind.option] = mask & allowed[kind.option]
        beyond = beyond or granted.get(kind.option, 0) != mask
    excess = _excess(rule, request, wanted, granted, enums) if beyond else ()
    problems = _misplaced(rule, wanted.path, wanted.mode)
    if excess and not rule["trim"]:
        problems += [why for _, why in excess]
    elif excess and not granted:
        problems.append(Problem(f"rule {quote(name)} allows nothing of what is asked for"))
    if problems:
        from .refusal import advice

        raise HookError(REFUSED, *problems, rule=name, hint=advice(wanted, subject, enums))
    grant = Grant(masks=granted, path=wanted.path, mode=wanted.mode)
    trimmed = tuple(item for item, _ in excess)
    return Decision(rule=name, grant=grant, confined=rule["confined"], trimmed=trimmed)


def _excess(
    rule: "Rule",
    request: Request,
    wanted: Grant,
    granted: "Mapping[str, int]",
    enums: "Mapping[str, Enum]",
) -> "tuple[tuple[str, Problem], ...]":
    """Each item of the `request` with bits beyond what `rule` has `granted`, and why so."""
    from .refusal import items

    name = quote(rule["name"])
    found: list[tuple[str, Problem]] = []
    for kind in KINDS:
        rest = wanted.masks.get(kind.option, 0) & ~granted.get(kind.option, 0)
        listed = rest & rule["masks"].get(kind.option, 0)
        enum = enums.get(kind.option)
        for bits, why in (
            (rest & ~listed, "doesn't allow"),
            (listed, "is confined, and a confined token is never given"),
        ):
            more = items(request, kind.option, bits, enum) if bits else []
            for one in more:
                text = f"rule {name} {why} {one.text}"
                found.append((one.text, Problem(text, key=one.key, item=one.item)))
    return tuple(found)
