"""A recording: each kind of call that a program made, how often, and what came of it.

A program may make the same call thousands of times; that is one entry with a count.
"""

import errno
from collections.abc import Iterable, Mapping
from typing import Any

from ..advise.pointers import WITH_PACKETS, takes_perfmon
from ..bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS, Enum
from ..bpf.type_facts import PROGRAMS
from ..values import Value
from . import perf_events
from .call import LITTLE, WITH_TOKEN, Call
from .libbpf_probes import EXP_ATTACH_TYPE, Teller

VERSION = 1
OK = "ok"
# Entries beyond this number have no names: there may be any number of names, but not of kinds.
_NAMED_MAX = 4096
# Program types, by number, whose programs see packets.
_WITH_PACKETS = {number: name for number, name in enumerate(PROGRAMS) if name in WITH_PACKETS}
# The most bytes of a program that is followed; the thread that loads it waits for us meanwhile.
_FOLLOWED_MAX = 1 << 15
# How many threads, and how many programs that were followed, are remembered.
_KEPT_MAX = 256
# The most entries; only this bounds them while the kinds that exist aren't known.
_ENTRIES_MAX = 65536


class RecordingError(ValueError):
    """The data isn't the JSON form of a recording."""


class Entry(Value):
    """Calls that are alike.  Types and commands are numbers, None if the command has none.

    `result` is "ok", the name of an errno, or None if nobody saw it; `probe` is the one of
    libbpf's probes that it is, or ""; `flags` are a program's, `helpers` the numbers of the helpers
    that it calls; `arithmetic` is what it does with pointers that takes CAP_PERFMON, or "".  `btf`
    says whether it came with BTF, and `optional` whether libbpf may leave out its attach type if
    that is refused.  `unseen` says that a program's instructions weren't seen: what they would tell
    isn't known then, and no probe is recognised by them.
    """

    __slots__ = (
        *("arithmetic", "attach_type", "btf", "cmd", "flags", "helpers", "map_type", "name"),
        *("optional", "probe", "prog_type", "result", "token", "unseen"),
    )
    cmd: int
    map_type: int | None
    prog_type: int | None
    attach_type: int | None
    flags: int
    helpers: tuple[int, ...]
    arithmetic: str
    name: str
    token: bool
    btf: bool
    result: str | None
    probe: str
    optional: bool
    unseen: bool


class Recording:
    """What is recorded of a `command`, call by call.

    `granted` are the masks that it had, None if unknown; `exit` is its exit code, a negative
    signal's number, or None; `blind` says why results couldn't be seen, if they couldn't;
    `perf_events` counts the calls of perf_event_open(2) in a trace, by `perf_events.KINDS`.
    """

    def __init__(self, command: Iterable[str], *, granted: Mapping[str, int] | None = None) -> None:
        self.command = list(command)
        self.granted = granted
        self.exit: int | None = None
        self.blind = ""
        self.dropped = 0
        self.perf_events: dict[str, int] = {}
        self.entries: dict[Entry, int] = {}
        # What was found in programs, each of which may be loaded again and again.
        self._followed: dict[tuple[str, bytes], str] = {}
        self._tellers: dict[int, Teller] = {}
        # Processes that use libbpf, and those in which its probe has found that attach types work.
        self._libbpf: set[int] = set()
        self._declared: set[int] = set()

    @property
    def name(self) -> str:
        """What to call it: the command, without its directory."""
        first, *rest = self.command or ["?"]
        return " ".join([first.rpartition("/")[2], *rest])[:120]

    def add(self, call: Call) -> None:
        """Record the next call of its thread."""
        if call.tid not in self._tellers:
            if len(self._tellers) >= _KEPT_MAX:
                # The thread that came first has most likely ended.
                self._end(next(iter(self._tellers)))
            self._tellers[call.tid] = Teller()
        for told, probe in self._tellers[call.tid].tell(call):
            self._enter(told, probe)

    def end(self) -> None:
        """There are no more calls."""
        for tid in list(self._tellers):
            self._end(tid)

    def _end(self, tid: int) -> None:
        for told, probe in self._tellers.pop(tid).end():
            self._enter(told, probe)

    def _enter(self, call: Call, probe: str) -> None:
        if probe == EXP_ATTACH_TYPE and call.pid not in self._libbpf:
            # libbpf would make other probes before this, so it is the program's own call.
            probe = ""
        if probe:
            self._libbpf.add(call.pid)
        result = _result(call.result)
        if probe == EXP_ATTACH_TYPE and result in (OK, None):
            self._declared.add(call.pid)
        entry = Entry(
            cmd=call.cmd,
            map_type=call.map_type,
            prog_type=call.prog_type,
            attach_type=call.attach_type,
            flags=call.shape[2] if call.prog_type is not None else 0,
            helpers=call.helpers,
            arithmetic="" if probe else self._arithmetic(call),
            name=call.name if len(self.entries) < _NAMED_MAX else "",
            token=call.token,
            btf=call.btf,
            result=result,
            probe=probe,
            optional=call.prog_type is not None and not probe and call.pid in self._declared,
            unseen=call.prog_type is not None and bool(call.shape[0]) and not call.instructions,
        )
        self.count(entry, 1)

    def _arithmetic(self, call: Call) -> str:
        prog = _WITH_PACKETS.get(call.prog_type or 0)
        code = call.instructions
        if prog is None or not 0 < len(code) <= _FOLLOWED_MAX:
            return ""
        key = prog, code
        if key not in self._followed and len(self._followed) < _KEPT_MAX:
            self._followed[key] = takes_perfmon(code, "little" if LITTLE else "big", prog) or ""
        return self._followed.get(key, "")

    def count(self, entry: Entry, count: int) -> None:
        """Add `count` calls that are like `entry`."""
        if entry in self.entries or len(self.entries) < _ENTRIES_MAX:
            self.entries[entry] = self.entries.get(entry, 0) + count
        else:
            self.dropped += count

    @property
    def with_token(self) -> bool:
        """Whether any call came with a token."""
        return any(entry.token for entry in self.entries)

    def delegable(self) -> Iterable[tuple[Entry, int]]:
        """The entries whose command takes a token, and how often each was called."""
        return ((one, count) for one, count in self.entries.items() if one.cmd in WITH_TOKEN)


def _result(number: int | None) -> str | None:
    if number is None:
        return None
    return OK if number >= 0 else errno.errorcode.get(-number, str(number))


# ------------------------------------------------------------------------ the JSON form


def as_json(recording: Recording, enums: Mapping[str, Enum]) -> dict[str, Any]:
    """The JSON form of `recording`, with the names of `enums`; what has no name is a number."""
    granted = recording.granted
    return {
        "recording": VERSION,
        "command": recording.command,
        "exit": recording.exit,
        "granted": None
        if granted is None
        else {option: f"{granted.get(option, 0):#x}" for option in (kind.option for kind in KINDS)},
        "blind": recording.blind,
        "dropped": recording.dropped,
        **({"perf_events": recording.perf_events} if recording.perf_events else {}),
        "calls": [
            {**_entry_as_json(entry, enums), "count": count}
            for entry, count in recording.entries.items()
        ],
    }


_NUMBERS = {
    "cmd": CMDS.option,
    "map_type": MAPS.option,
    "prog_type": PROGS.option,
    "attach_type": ATTACHS.option,
}


def _entry_as_json(entry: Entry, enums: Mapping[str, Enum]) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(entry, name) for name in entry.__slots__}
    found["helpers"] = list(entry.helpers)
    for key, option in _NUMBERS.items():
        if found[key] is not None:
            found[key] = enums[option].names.get(found[key], found[key])
    # The command comes first, for people, and empty fields are left out.
    keys = (*_NUMBERS, *(key for key in found if key not in _NUMBERS))
    return {
        key: found[key] for key in keys if found[key] not in (None, "", False, []) or key in _ALWAYS
    }


_ALWAYS = ("cmd", "token", "result")


def from_json(data: Any, enums: Mapping[str, Enum]) -> Recording:
    """The Recording whose JSON form `data` is.  Raises RecordingError."""
    if not isinstance(data, dict) or data.get("recording") != VERSION:
        raise RecordingError(f"it isn't a recording of version {VERSION}")
    command, calls, granted = data.get("command"), data.get("calls"), data.get("granted")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise RecordingError("command isn't a list of strings")
    if not isinstance(calls, list):
        raise RecordingError("calls isn't a list")
    recording = Recording(command, granted=None if granted is None else _masks(granted))
    recording.exit = _typed(data, "exit", int, None)
    recording.blind = _typed(data, "blind", str, "")
    recording.dropped = _typed(data, "dropped", int, 0)
    recording.perf_events = _perf_events(_typed(data, "perf_events", dict, {}))
    for number, one in enumerate(calls):
        try:
            recording.count(_entry(one, enums), _typed(one, "count", int, 1))
        except RecordingError as error:
            raise RecordingError(f"calls[{number}]: {error}") from None
    return recording


def _perf_events(data: Mapping[str, Any]) -> dict[str, int]:
    for kind in data:
        if kind not in perf_events.KINDS:
            raise RecordingError(f"perf_events: {kind!r:.64} isn't one of its kinds")
    return {kind: _typed(data, kind, int, 1) for kind in data}


def _masks(granted: Any) -> dict[str, int]:
    try:
        return {option: int(mask, 16) for option, mask in granted.items()}
    except (AttributeError, TypeError, ValueError):
        raise RecordingError("granted has no masks") from None


def _entry(data: Any, enums: Mapping[str, Enum]) -> Entry:
    if not isinstance(data, dict):
        raise RecordingError("it isn't an object")
    numbers = {key: _number(data.get(key), enums[option]) for key, option in _NUMBERS.items()}
    cmd = numbers.pop("cmd")
    if cmd is None:
        raise RecordingError("it has no cmd")
    return Entry(
        cmd=cmd,
        **numbers,
        flags=_typed(data, "flags", int, 0),
        helpers=_helpers(data),
        arithmetic=_typed(data, "arithmetic", str, ""),
        name=_typed(data, "name", str, ""),
        token=_typed(data, "token", bool, False),
        btf=_typed(data, "btf", bool, False),
        result=_typed(data, "result", str, None),
        probe=_typed(data, "probe", str, ""),
        optional=_typed(data, "optional", bool, False),
        unseen=_typed(data, "unseen", bool, False),
    )


def _helpers(data: Mapping[str, Any]) -> tuple[int, ...]:
    found = _typed(data, "helpers", list, [])
    if not all(isinstance(one, int) for one in found):
        raise RecordingError("helpers has no numbers")
    return tuple(found)


def _number(value: Any, enum: Enum) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    found = enum.values.get(value) if isinstance(value, str) else None
    if found is None:
        raise RecordingError(f"there is no {enum.kind.what} {value!r:.64}")
    return found


def _typed(data: Mapping[str, Any], key: str, wanted: type, default: Any) -> Any:
    value = data.get(key)
    if value is None:
        return default
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise RecordingError(f"{key} isn't of the type {wanted.__name__}")
    return value
