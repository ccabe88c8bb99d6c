"""The messages between the hook and the broker, which schema/wire.schema.json describes too.

Each message is one packet of JSON.  The hook asks, the broker answers with its decision, the hook
says to go on, and the broker sends the mount with its last message.  Instead of an answer the
broker may send an error, and nothing more comes then.  Neither side trusts the other: anything that
isn't exactly one of these messages is refused.
"""

from ..bpf.names import KINDS
from ..delegation.written import written
from ..errors import BAD_OBJECT, BAD_STATE, DONE, EXITS, FOUND, LISTED, NO_BROKER, HookError, quote
from ..policy.subject import CLAIMS
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ..delegation.annotations import Request

# The version of this protocol.  Each message has it, and another one is refused.
VERSION = 1
# The most bytes that a message may have.
LONGEST = 1 << 16
# The most characters of a sentence, and of a name.
_SENTENCE = 4096
_NAME = 1024
# The codes with which the broker refuses: the hook's exit codes, without those of commands.
CODES = frozenset(EXITS) - {DONE, FOUND, BAD_OBJECT}
_OPTIONS = tuple(kind.option for kind in KINDS)


class Ask(Value):
    """The hook's request: the annotations that ask for it, without KEY/NAME, and the claims."""

    __slots__ = ("annotations", "claims", "id")
    id: str
    annotations: dict[str, str]
    claims: dict[str, str]


class Granted(Value):
    """The broker's decision: the mask of each delegate_* option, the rule, and what it left out."""

    __slots__ = ("dropped", "masks", "rule", "trimmed")
    masks: dict[str, int]
    rule: str
    dropped: tuple[str, ...]
    trimmed: tuple[str, ...]


def make_ask(request: "Request", identity: str, found: "Mapping[str, object]") -> Ask:
    """What to send for a `request` of the container `identity`; `found` are the names it claims."""
    claims = {key: str(found[key]) for key in CLAIMS if found.get(key) is not None}
    return Ask(id=identity, annotations=written(request), claims=claims)


def ask(asked: Ask) -> "dict[str, object]":
    """The message that asks."""
    return {
        "version": VERSION,
        "id": asked.id,
        "annotations": asked.annotations,
        "claims": asked.claims,
    }


def go_on() -> "dict[str, object]":
    """The message that the hook wants what was decided."""
    return {"version": VERSION, "mount": True}


def granted(decision: Granted) -> "dict[str, object]":
    """The message with a `decision`."""
    return {
        "version": VERSION,
        "granted": {option: f"{mask:#x}" for option, mask in decision.masks.items()},
        "rule": decision.rule,
        "dropped": _listed(decision.dropped),
        "trimmed": _listed(decision.trimmed),
    }


def mounted() -> "dict[str, object]":
    """The message that comes with the mount."""
    return {"version": VERSION, "mounted": True}


def refused(code: int, problems: "Iterable[str]") -> "dict[str, object]":
    """The message with an error: its exit code, and the sentences that explain it."""
    return {"version": VERSION, "code": code, "problems": _listed(tuple(problems))}


def _listed(texts: tuple[str, ...]) -> list[str]:
    return [text[:_SENTENCE] for text in texts[:LISTED]]


def read_ask(message: object) -> Ask:
    """The request in the decoded `message`.  Raises HookError (BAD_STATE, NO_BROKER)."""
    try:
        fields = _fields(message, ("id", "annotations", "claims"))
        claims = _strings(fields, "claims")
        if not claims.keys() <= set(CLAIMS):
            raise _OddError("has an unknown claim")
        identity = _string(fields["id"], "id", _NAME)
        return Ask(id=identity, annotations=_strings(fields, "annotations"), claims=claims)
    except _OddError as error:
        raise HookError(BAD_STATE, f"the request to the broker {error}") from None


def read_go_on(message: object) -> None:
    """Check that the decoded `message` is go_on()'s.  Raises HookError (BAD_STATE, NO_BROKER)."""
    try:
        _true(message, "mount")
    except _OddError as error:
        raise HookError(BAD_STATE, f"the request to the broker {error}") from None


def read_granted(message: object) -> Granted:
    """The decision in the decoded `message`.  Raises the broker's HookError, or NO_BROKER."""
    try:
        _raise_refused(message)
        fields = _fields(message, ("granted", "rule", "dropped", "trimmed"))
        texts = _strings(fields, "granted")
        if not texts.keys() <= set(_OPTIONS):
            raise _OddError("grants an unknown option")
        return Granted(
            masks={option: _mask(text) for option, text in texts.items()},
            rule=_string(fields["rule"], "rule", _NAME),
            dropped=_sentences(fields, "dropped"),
            trimmed=_sentences(fields, "trimmed"),
        )
    except _OddError as error:
        raise _from_broker(error) from None


def read_mounted(message: object) -> None:
    """Check that the decoded `message` is mounted()'s.  Raises HookError, like read_granted."""
    try:
        _raise_refused(message)
        _true(message, "mounted")
    except _OddError as error:
        raise _from_broker(error) from None


class _OddError(ValueError):
    """What is wrong with a message: the rest of a sentence that begins with the message."""


def _from_broker(error: _OddError) -> HookError:
    return HookError(NO_BROKER, f"the broker's answer {error}; restart the broker")


def _raise_refused(message: object) -> None:
    """Raise the broker's error if `message` has one."""
    if isinstance(message, dict) and "code" in message:
        fields = _fields(message, ("code", "problems"))
        problems = _sentences(fields, "problems")
        code = fields["code"]
        if type(code) is not int or code not in CODES or not problems:
            raise _OddError("is an error without a reason")
        raise HookError(code, *problems)


def _fields(message: object, keys: tuple[str, ...]) -> "dict[str, Any]":
    """The fields of `message`, which has to have exactly the `keys` and our version."""
    if not isinstance(message, dict):
        raise _OddError("isn't a JSON object")
    version = message.get("version")
    if type(version) is not int:
        raise _OddError("has no version")
    if version != VERSION:
        raise HookError(
            NO_BROKER,
            f"hook and broker are of different releases, because one speaks version {VERSION} of "
            f"their protocol and the other {version}; install one release, and restart the broker",
        )
    if message.keys() != {"version", *keys}:
        raise _OddError(f"has the keys {quote(' '.join(sorted(message)))}")
    return message


def _true(message: object, key: str) -> None:
    if _fields(message, (key,))[key] is not True:
        raise _OddError(f"has a {key} that isn't true")


def _string(value: object, key: str, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise _OddError(f"has a field {key} that isn't a string of at most {longest} characters")
    return value


def _strings(fields: "dict[str, Any]", key: str) -> dict[str, str]:
    value = fields[key]
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise _OddError(f"has a field {key} whose values aren't all strings")
    return value


def _sentences(fields: "dict[str, Any]", key: str) -> tuple[str, ...]:
    value = fields[key]
    if not isinstance(value, list) or len(value) > LISTED:
        raise _OddError(f"has a field {key} that isn't a list of at most {LISTED} items")
    return tuple(_string(one, key, _SENTENCE) for one in value)


def _mask(text: str) -> int:
    digits = text.removeprefix("0x")
    if digits == text or not 0 < len(digits) <= 16 or digits.strip("0123456789abcdef"):
        raise _OddError("has a mask that isn't 0x and at most 16 hexadecimal digits")
    return int(digits, 16)
