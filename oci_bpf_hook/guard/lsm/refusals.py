"""Reads what the guard has refused, and says it in words or writes it to the audit trail.

The guard keeps the last few refusals of each of a thousand user namespaces, and a queue of those
that aren't in the audit trail yet.  Both are bounded; the refusals' numbers show what was lost.
"""

import os
import time
from collections.abc import Iterator, Mapping
from errno import ENOENT
from struct import Struct

from ...audit.write import line, write
from ...bpf.capabilities import CAPABILITIES
from ...bpf.names import KINDS, MAPS, PROGS
from ...errors import REFUSED, quote
from ...kernel import enums as kernel
from ...kernel import syscalls
from ...mount import scratch
from ...paths import GUARD
from ...policy.store.cache import in_force
from ...values import Value
from ..pinned import KEY
from .lists import helpers, types
from .load import EVENTS, SPACES, keys

# The reasons, numbered as in guard.bpf.c.
KFUNC, MODULE, HELPER, VARIABLE, TYPE, CAPABILITY, TOKENS, MAP, UNREADABLE = range(1, 10)
INSTRUCTION, LOAD, PERFMON = range(10, 13)
REASONS = {
    KFUNC: "kfunc",
    MODULE: "module",
    HELPER: "helper",
    VARIABLE: "variable",
    TYPE: "type",
    CAPABILITY: "capability",
    TOKENS: "tokens",
    MAP: "map",
    UNREADABLE: "unreadable",
    INSTRUCTION: "instruction",
    LOAD: "load",
    PERFMON: "perfmon",
}
# struct refusal: number, time; space, uid, pid, reason, what, type, instruction, padding; the
# program's name and the command's.
_REFUSAL = Struct("=QQ8I16s16s")
# struct space: how many refusals there were, followed by the last of them.
_SPACE = Struct("=Q")
_LAST = 8
_SPACE_SIZE = _SPACE.size + _LAST * _REFUSAL.size
_NO_TYPE = 0xFFFFFFFF
_CAPABILITIES = {number: f"CAP_{name}" for name, number in CAPABILITIES.items()}


class Refusal(Value):
    """One load, or token, that the guard has refused.

    `number` counts the refusals of this host, from 1 on since the guard was first turned on; `time`
    is in seconds since the epoch; `space` is the user namespace's inode number; `uid` and `pid` are
    the host's ids of the process that tried it; `reason` is one of REASONS, `what` the name of the
    kernel function, helper, variable, type or capability; `type` is the program's type, or "" if
    there is none; `instruction` is its number.
    """

    __slots__ = (
        *("command", "instruction", "number", "pid", "program", "reason", "space", "time"),
        *("type", "uid", "what"),
    )
    number: int
    time: float
    space: int
    uid: int
    pid: int
    reason: str
    what: str
    type: str
    instruction: int
    program: str
    command: str

    def __str__(self) -> str:
        """What was refused, and what to do, as a sentence."""
        refused, fix = _SENTENCES[self.reason]
        thing = {"tokens": "token", "map": "map"}.get(self.reason, f"{self.type} program")
        name = f" {quote(self.program)}" if self.program else ""
        who = f"{quote(self.command)} (pid {self.pid})"
        return f"{who}: its {thing}{name} {refused.format(what=self.what)}; {fix}"


_WITHOUT = (
    "do without it, or an administrator trusts the container with the kernel: confined: false"
)
_LEAVE = (
    "leave the type out, or an administrator trusts the container with the kernel: confined: false"
)
# What was refused, and what to do.
_SENTENCES = {
    "kfunc": ("calls the kernel function {what}, which isn't on the guard's list for it", _WITHOUT),
    "module": ("calls a function of a kernel module", _WITHOUT),
    "helper": ("calls the helper bpf_{what}, which the guard closes for its type", _WITHOUT),
    "variable": ("takes the address of the kernel variable {what}", _WITHOUT),
    "type": ("is of a type that no confined token loads", _LEAVE),
    "capability": (
        "is of a type that takes {what}, which no confined token has, whatever is added",
        _LEAVE,
    ),
    "tokens": ("is one more than the {what} tokens that its user has", "close some"),
    "map": ("is of the type {what}, which no confined token makes", _LEAVE),
    "unreadable": ("has instructions that can't be read", "report this as a bug"),
    "instruction": ("has an instruction that the guard refuses ({what})", _WITHOUT),
    "load": ("reads memory that the verifier doesn't trust", _WITHOUT),
    "perfmon": (
        "calls the helper bpf_{what}, which takes CAP_PERFMON, so it must never reach that call",
        _WITHOUT,
    ),
}


def of_space(space: int, directory: str = GUARD) -> list[Refusal]:
    """The last refusals of the user namespace with the inode number `space`, the newest first.

    Raises OSError if no guard is pinned in `directory`.
    """
    with _Map(directory, SPACES) as spaces:
        try:
            value = spaces.read(KEY.pack(space), _SPACE_SIZE)
        except OSError as error:
            if error.errno != ENOENT:
                raise
            return []
    return _decoded(_last(value))


def all_last(directory: str = GUARD) -> list[Refusal]:
    """The last refusals of all user namespaces, the newest first.  Raises OSError."""
    found: list[bytes] = []
    with _Map(directory, SPACES) as spaces:
        for key in spaces:
            try:
                found += _last(spaces.read(key, _SPACE_SIZE))
            except OSError as error:
                if error.errno != ENOENT:  # The guard has forgotten it meanwhile.
                    raise
    return _decoded(found)


def queued(directory: str = GUARD) -> Iterator[Refusal]:
    """The refusals that aren't in the audit trail yet, the oldest first; each leaves the queue.

    Raises OSError.
    """
    taken: list[bytes] = []
    with _Map(directory, EVENTS) as events:
        while True:
            try:
                taken.append(events.take(_REFUSAL.size))
            except OSError as error:
                if error.errno != ENOENT:
                    raise
                break
    yield from reversed(_decoded(taken))


def to_trail(directory: str = GUARD) -> int:
    """Write the queued refusals to the audit trail; returns how many there were.

    A gap in their numbers shows what was lost on the way.  Raises HookError, OSError.
    """
    to = in_force().audit_to
    count = 0
    for one in queued(directory):
        write(to, line(_entry(one)), required=False)
        count += 1
    return count


def _entry(one: Refusal) -> dict[str, object]:
    told = {name: getattr(one, name) for name in sorted(one.__slots__) if name != "time"}
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.time))
    return {"outcome": "guarded", "code": REFUSED, "guard": {"time": at, **told}}


class _Map:
    """One of the guard's pinned maps, to be used in a `with`."""

    def __init__(self, directory: str, name: str) -> None:
        self._fd = syscalls.bpf_obj_get(f"{directory}/{name}".encode())

    def __enter__(self) -> "_Map":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def read(self, key: bytes, size: int) -> bytes:
        return syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, self._fd, key, size)

    def take(self, size: int) -> bytes:
        return syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_AND_DELETE_ELEM, self._fd, b"", size)

    def __iter__(self) -> Iterator[bytes]:
        return keys(self._fd, KEY.size)


def _last(value: bytes) -> list[bytes]:
    """The refusals in a struct space, in its order."""
    places = range(_SPACE.size, _SPACE_SIZE, _REFUSAL.size)
    return [value[at : at + _REFUSAL.size] for at in places]


def _decoded(values: list[bytes]) -> list[Refusal]:
    """The refusals in `values`, the newest first, without empty ones and the guard's own trials."""
    values = [value for value in values if any(value[:8])]
    if not values:
        return []
    words = _Words()
    found = {one.number: one for one in map(words.refusal, values) if one.uid != scratch.ID}
    return [found[number] for number in sorted(found, reverse=True)]


class _Words:
    """The names of what the guard knows by numbers, on this kernel."""

    def __init__(self) -> None:
        enums = kernel.enums(KINDS)
        self._programs, self._maps = enums[PROGS.option].names, enums[MAPS.option].names
        # The records' clock begins at the boot and, like the wall clock, runs on during suspend.
        self._boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def refusal(self, value: bytes) -> Refusal:
        number, at, space, uid, pid, reason, what, kind, instruction, _, *names = _REFUSAL.unpack(
            value
        )
        program, command = (
            name.split(b"\0")[0].decode("utf-8", "backslashreplace") for name in names
        )
        return Refusal(
            number=number,
            time=self._boot + at / 1e9,
            space=space,
            uid=uid,
            pid=pid,
            reason=REASONS.get(reason, str(reason)),
            what=self._what(reason, what),
            type="" if kind == _NO_TYPE else self._programs.get(kind, str(kind)),
            instruction=instruction,
            program=program,
            command=command,
        )

    def _what(self, reason: int, what: int) -> str:
        names: Mapping[int, str] = {}
        if reason in (HELPER, PERFMON):
            names = {value: name for name, value in helpers(types()).items()}
        elif reason == TYPE:
            names = self._programs
        elif reason == MAP:
            names = self._maps
        elif reason == CAPABILITY:
            names = _CAPABILITIES
        elif reason in (KFUNC, VARIABLE) and what < len(types()):
            return types().name(what) or f"number {what}"
        return names.get(what, f"number {what}" if reason != TOKENS else str(what))
