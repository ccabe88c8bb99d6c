"""The options --policy, --engine and --attr: the policy that decides, and facts about who asks."""

import argparse
import grp
import pwd

from ...bpf.names import KINDS
from ...errors import USAGE, HookError, Problem, quote
from ...kernel import enums as kernel
from ...policy.compiled import Compiled
from ...policy.origin import OF_USERS, set_by
from ...policy.store import cache
from ...policy.subject import CLAIMS, ENGINES, Subject
from ...text.strict_json import load_json
from . import request
from .table import argument

_TRUTHS = {"true": True, "false": False}
ENGINE = argument("--engine", choices=ENGINES, help="the engine that runs the hook")
ARGUMENTS = (
    argument("--policy", metavar="FILE", help="the policy to use instead of the one in force"),
    ENGINE,
    argument(
        *("--attr",),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="what a rule may match, such as image=..., user=NAME or host_network=true; may be "
        "repeated, also for several groups",
    ),
)


def read_policy(path: str | None) -> Compiled:
    """The policy in the file `path`, or the one in force.  Raises HookError."""
    if path is None:
        return cache.in_force()
    from ...policy.pack import pack
    from ...policy.store.file import load

    loaded = load(request.read(path), path)
    names = {option: enum.values for option, enum in kernel.enums(KINDS).items()}
    data = pack({**loaded.header, "identity": [], "names": names}, loaded.rules)
    return Compiled(lambda offset, size: data[offset : offset + size], load_json)


def attributes(options: argparse.Namespace) -> dict[str, object]:
    """What --attr says about who asks.  Raises HookError (USAGE)."""
    found: dict[str, object] = {}
    groups: list[int] = []
    for key, value in map(request.pair, options.attr):
        if key == "group":
            groups.append(_id(key, value))
            found[key] = tuple(groups)
        else:
            found[key] = _attribute(key, value)
    return found


def _attribute(key: str, value: str) -> object:
    if key in OF_USERS:
        if value not in _TRUTHS:
            raise _wrong(f"--attr {key}: {quote(value)} is neither true nor false", value)
        return _TRUTHS[value]
    if key == "user":
        return _id(key, value)
    if key == "engine":
        raise _wrong(f"--attr can't set the engine; write --engine {quote(value)}", key)
    if key not in ("cdi", *CLAIMS):
        raise _wrong(f"--attr: no rule can match {quote(key)}", key)
    return value


def _wrong(text: str, item: str) -> HookError:
    return HookError(USAGE, Problem(text, key="--attr", item=item))


def _id(key: str, value: str) -> int:
    """The id of a user or a group, given by name or id as in a policy."""
    if value.isascii() and value.isdecimal() and len(value) <= 10:
        return int(value)
    try:
        return pwd.getpwnam(value).pw_uid if key == "user" else grp.getgrnam(value).gr_gid
    except (KeyError, ValueError):
        raise _wrong(f"--attr {key}: this host has no {key} {quote(value)}", value) from None


def shown(subject: Subject) -> dict[str, dict[str, object]]:
    """What a rule may match of `subject`: by key, the value and who sets it."""
    return {
        key: {
            "value": list(value) if isinstance(value, tuple) else value,
            "set_by": set_by(subject, key),
        }
        for key, value in subject.known().items()
    }
