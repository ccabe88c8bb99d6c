"""Finds the needs that a recording shows, in the same form as those of compiled objects.

The program needs what it asked for and got, and what it was refused because it wasn't delegated.  A
call that failed for another reason would fail in the same way without its bit.  Of libbpf's probes
only those count that libbpf can't do without (libbpf: src/libbpf.c, bpf_object__probe_loading, and
src/features.c).
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from ..advise import calls
from ..advise.feature_probes import FALLBACKS, LEFT_OUT, READS, left_out, read_alike
from ..advise.needs import CALL, CAPABILITY, PROBE, Caution, Needs, Reason, make
from ..advise.sections import LIBBPF, ZERO, is_optional
from ..bpf.attaching import PERF_ATTACH, PERF_BUFFER, by_perf_event, perf_attach, perf_buffer
from ..bpf.capabilities import PERFMON_HELPERS
from ..bpf.names import ATTACHS, CMDS, MAPS, PROGS, Enum
from . import call, libbpf_probes, perf_events
from .recording import OK, Entry, Recording

_REFUSED = ("EPERM", "EACCES")
# SEC("xdp.frags") has the same types as SEC("xdp"), but its attach type isn't optional; this flag
# tells them apart.
_XDP_HAS_FRAGS = 1 << 5
# The findings of the other probes change names, messages or how libbpf attaches, or they need
# nothing that the program itself doesn't need.
_FIRST_PROBE_WHY = "libbpf 1.4 to 1.7 first loads one, and loads nothing else if that fails"
_PROBE_WHY = {
    libbpf_probes.GLOBAL_DATA: "libbpf probes whether maps can hold global data, which the "
    "program has",
    libbpf_probes.PROBE_READ_KERN: "libbpf probes for bpf_probe_read_kernel(), and uses "
    "bpf_probe_read() if the probe fails",
    libbpf_probes.BPF_COOKIE: "libbpf probes for BPF cookies, and tells the program that there "
    "are none if the probe fails",
}
_UNSEEN = (
    "came without the instructions, so every load counts as the program's own: the "
    "lists may have what only libbpf's probes ask for, such as socket_filter, cgroup_sock and "
    "kprobe, and CAP_PERFMON may be missing, which a program needs to print, to read memory and "
    "for some arithmetic with pointers; strace shows instructions with -v"
)
# PROG_ATTACH and LINK_CREATE.
_ATTACHING = (8, 28)
_EXACT_WHY = (
    "libbpf probes for attach types, and loads with 0 instead of optional ones if the probe fails"
)
# The kernel replaces 0 by these before it looks at the token (Linux: kernel/bpf/syscall.c,
# bpf_prog_load_fixup_attach_type).
_FIXED_UP = {"cgroup_sock": "cgroup_inet_sock_create", "sk_reuseport": "sk_reuseport_select"}
# A call's command, and its types of map, program and attach point.
_Attempt = tuple[int, int | None, int | None, int | None]


def learn(recording: Recording, enums: Mapping[str, Enum], *, exact: bool = False) -> Needs:
    """What `recording` shows to be needed, with the names of `enums`.

    `exact` keeps the attach types that libbpf can do without, and what its probe of them needs.
    """
    return _Learner(recording, enums, exact=exact).needs()


def attach_type_is_optional(entry: Entry, enums: Mapping[str, Enum]) -> bool:
    """Whether libbpf would load this program with attach type 0 if its probe of these failed."""
    if not entry.optional or entry.prog_type is None or entry.attach_type is None:
        return False
    prog = enums[PROGS.option].names.get(entry.prog_type, "")
    attach = enums[ATTACHS.option].names.get(entry.attach_type, "")
    frags = prog == "xdp" and bool(entry.flags & _XDP_HAS_FRAGS)
    return is_optional(prog, attach) and not frags


def _attempt(entry: Entry) -> _Attempt:
    """What the call tried to do: if it fails, libbpf may try the same again in another way."""
    return entry.cmd, entry.map_type, entry.prog_type, entry.attach_type


def _unread(entry: Entry) -> bool:
    """Whether its union was at an unmapped address, although it should contain a type."""
    if entry.cmd == call.MAP_CREATE:
        return entry.map_type is None
    return entry.cmd == call.PROG_LOAD and None in (entry.prog_type, entry.attach_type)


class _Learner:
    def __init__(self, recording: Recording, enums: Mapping[str, Enum], *, exact: bool) -> None:
        self._recording = recording
        self._enums = enums
        self._exact = exact
        self._source = recording.name
        self._warnings: list[Caution] = []
        # Programs that need a probe only on other machines.
        self._readers: tuple[str, ...] = ()

    def needs(self) -> Needs:
        self._overall()
        counted = list(self._counted())
        own = [(entry, count) for entry, count in counted if not entry.probe]
        self._unseen(own)
        # With these two libbpf's probe of attach types succeeds, whatever else needs them.
        declared = self._exact or any(
            (self._prog(entry), self._attach(entry)) == ("cgroup_sock", "cgroup_inet_sock_create")
            for entry, _ in own
        )
        reasons: list[Reason] = []
        self._perf_events(entry for entry, _ in own)
        described = any(entry.btf for entry, _ in own)
        for entry, count in own:
            if entry.cmd == call.BTF_LOAD and not described:
                self._warn(
                    "btf-unused",
                    f"{self._what(entry, count)} doesn't count: nothing that it loads has that BTF",
                )
                continue
            reasons += self._own(entry, count, declared=declared)
        for entry in self._telling(counted, own):
            reasons += self._probe(entry)
        has = {reason.name for reason in reasons if reason.option == PROGS.option}
        self._left_out(has)
        if not has & {"socket_filter", "tracepoint"}:
            # Either of these two types will do, and the probe gets the first that it tries.
            reasons += self._first_probe(entry for entry, _ in counted)
        return make(reasons=reasons, warnings=self._warnings)

    def _telling(
        self, counted: Iterable[tuple[Entry, int]], own: Iterable[tuple[Entry, int]]
    ) -> Iterator[Entry]:
        """The probes that matter to what is loaded; libbpf makes more of them."""
        loaded = [entry for entry, _ in own]
        reads = any(READS & set(entry.helpers) for entry in loaded)
        readers = [entry for entry in loaded if (READS | FALLBACKS) & set(entry.helpers)]
        alike = read_alike(map(self._prog, readers), os.uname().machine)
        optional = any(attach_type_is_optional(entry, self._enums) for entry in loaded)
        for entry, _ in counted:
            # After a refusal libbpf has put another helper into the program.
            if entry.probe == libbpf_probes.PROBE_READ_KERN and not reads and entry.result == OK:
                continue
            if entry.probe == libbpf_probes.PROBE_READ_KERN and readers and alike:
                self._readers = tuple(dict.fromkeys(map(self._called, readers)))
                continue
            if entry.probe == libbpf_probes.EXP_ATTACH_TYPE and not (self._exact and optional):
                continue
            yield entry

    def _overall(self) -> None:
        recording = self._recording
        if recording.blind:
            self._warn(
                "results-unknown",
                f"what the calls returned couldn't be seen ({recording.blind}), so all of them "
                "count as needed",
            )
        if recording.dropped:
            self._warn("incomplete", f"{recording.dropped} calls were too many to be told apart")

    def _perf_events(self, own: Iterable[Entry]) -> None:
        """Warn of programs that are attached by perf_event_open(2), and of its calls in a trace."""
        named = dict.fromkeys(
            self._called(entry)
            for entry in own
            if by_perf_event(self._prog(entry), self._attach(entry))
        )
        calls = self._recording.perf_events
        subjects = [*named, *(words for kind, words in perf_events.WORDS.items() if kind in calls)]
        if subjects:
            self._warn(PERF_ATTACH, perf_attach(subjects))
        if perf_events.BUFFER in calls:
            self._warn(PERF_BUFFER, perf_buffer("its perf buffers are"))

    def _left_out(self, progs: Collection[str]) -> None:
        """Say that a probe is left out, unless its type is among the `progs` for another reason."""
        prog, text = left_out(LIBBPF, self._readers)
        if self._readers and prog not in progs:
            self._warn(LEFT_OUT, text)

    def _unseen(self, own: Iterable[tuple[Entry, int]]) -> None:
        number = sum(count for entry, count in own if entry.unseen)
        if number:
            loads = "1 load of a program" if number == 1 else f"{number} loads of programs"
            self._warn("without-instructions", f"{loads} {_UNSEEN}")

    def _warn(self, code: str, text: str) -> None:
        self._warnings.append(Caution(code=code, source=self._source, text=text))

    def _counted(self) -> Iterator[tuple[Entry, int]]:
        """The entries that tell something about needs; the others give a warning."""
        recording = self._recording
        tokens = recording.with_token
        worked = {_attempt(entry) for entry, _ in recording.delegable() if entry.result == OK}
        for entry, count in recording.delegable():
            if tokens and not entry.token:
                if not entry.probe:
                    self._warn(
                        "without-token",
                        f"{self._what(entry, count)} came without a token, so no delegation "
                        "helps: the library that made the call doesn't use tokens",
                    )
            elif self._counts(entry, count, worked):
                yield entry, count
        if not tokens and recording.granted is not None and recording.entries:
            self._warn(
                "no-token",
                "no call came with a token: the program's library doesn't use tokens (libbpf does "
                "since 1.4, cilium/ebpf since 0.22), or it looks for the bpffs elsewhere",
            )

    def _counts(self, entry: Entry, count: int, worked: set[_Attempt]) -> bool:
        """Whether `entry` tells something about needs; `worked` are the attempts that succeeded."""
        what = self._what(entry, count)
        if _unread(entry) and entry.result in (OK, None, *_REFUSED):
            self._warn("unread", f"{what} doesn't count: its arguments couldn't be read")
            return False
        if self._unknown(entry):
            self._warn(
                "not-delegable", f"{what}: this kernel can't delegate that, or doesn't know it"
            )
            return False
        if entry.result in (OK, None):
            return True
        if entry.result in _REFUSED:
            if not entry.probe:
                self._warn(
                    "refused",
                    f"{what} was refused ({entry.result}) while it was recorded, so it isn't known "
                    "what would have come after it",
                )
            return True
        # If libbpf tries the same again in another way, and succeeds, there is nothing to tell.
        if not entry.probe and _attempt(entry) not in worked:
            self._warn("failed", f"{what} failed with {entry.result} and doesn't count")
        return False

    def _unknown(self, entry: Entry) -> bool:
        numbers = (
            (MAPS, entry.map_type),
            (PROGS, entry.prog_type),
            (ATTACHS, entry.attach_type),
        )
        return any(
            number is not None and (number not in self._enums[kind.option].names or number > 63)
            for kind, number in numbers
        )

    def _name(self, option: str, number: int | None) -> str:
        if number is None:
            return ""
        return self._enums[option].names.get(number, str(number))

    def _called(self, entry: Entry) -> str:
        return entry.name or self._prog(entry)

    def _prog(self, entry: Entry) -> str:
        return self._name(PROGS.option, entry.prog_type)

    def _attach(self, entry: Entry) -> str:
        """The attach type that the kernel looks for among the delegated ones."""
        name = self._name(ATTACHS.option, entry.attach_type)
        return _FIXED_UP.get(self._prog(entry), name) if name == ZERO else name

    def _what(self, entry: Entry, count: int) -> str:
        kind = self._name(MAPS.option, entry.map_type) or self._prog(entry)
        words = [self._name(CMDS.option, entry.cmd), *([kind] if kind else [])]
        if entry.prog_type is not None:
            words.append(f"with attach type {self._name(ATTACHS.option, entry.attach_type)}")
        if entry.name:
            words.append(f"({entry.name})")
        if count > 1:
            words.append(f"{count} times")
        return " ".join(words)

    def _own(self, entry: Entry, count: int, *, declared: bool) -> tuple[Reason, ...]:
        """What the program's own call needs."""
        why = f"it calls {self._what(entry, count)}"
        if entry.cmd == call.MAP_CREATE:
            map_type = self._name(MAPS.option, entry.map_type)
            return calls.map_create(map_type, source=self._source, kind=CALL, why=why)
        if entry.cmd == call.BTF_LOAD:
            return calls.btf_load(source=self._source, kind=CALL, why=why)
        if entry.cmd == call.BTF_GET_FD_BY_ID:
            return calls.btf_get_fd_by_id(source=self._source, kind=CALL, why=why)
        prog, attach = self._prog(entry), self._attach(entry)
        if not declared and attach_type_is_optional(entry, self._enums):
            why += f", and libbpf leaves out {attach} if cgroup_sock isn't delegated"
            attach = ZERO
        return (
            *calls.prog_load(prog, attach, source=self._source, kind=CALL, why=why),
            *self._more(self._capabilities(entry, why)),
        )

    def _more(self, capabilities: Iterable[tuple[str, str]]) -> Iterator[Reason]:
        for name, why in capabilities:
            yield Reason(option=CAPABILITY, name=name, source=self._source, kind=CALL, why=why)

    def _capabilities(self, entry: Entry, why: str) -> list[tuple[str, str]]:
        """The capabilities that a program needs besides those of its type."""
        found = []
        if PERFMON_HELPERS & set(entry.helpers):
            found.append(("perfmon", f"{why}, which prints or reads memory of others"))
        if any(self._name(MAPS.option, one.map_type) == "arena" for one in self._recording.entries):
            found.append(("perfmon", f"{why}, which may use an arena"))
        if entry.arithmetic:
            found.append(("perfmon", f"{why}, which {entry.arithmetic}"))
        if self._prog(entry) == "cgroup_skb" and self._attaches():
            found.append(("net_admin", f"{why}, and attaches it to a cgroup"))
        return found

    def _attaches(self) -> bool:
        return any(entry.cmd in _ATTACHING for entry in self._recording.entries)

    def _first_probe(self, entries: Iterable[Entry]) -> tuple[Reason, ...]:
        for entry in entries:
            if entry.probe == libbpf_probes.LOADING:
                prog = self._prog(entry)
                return calls.prog_load(
                    prog, ZERO, source=self._source, kind=PROBE, why=_FIRST_PROBE_WHY
                )
        return ()

    def _probe(self, entry: Entry) -> tuple[Reason, ...]:
        """What a probe needs, if libbpf loads something else without it."""
        if entry.probe in _PROBE_WHY:
            return self._tried(entry, _PROBE_WHY[entry.probe])
        if entry.probe == libbpf_probes.EXP_ATTACH_TYPE:
            return self._tried(entry, _EXACT_WHY)
        return ()

    def _tried(self, entry: Entry, why: str) -> tuple[Reason, ...]:
        if entry.cmd == call.MAP_CREATE:
            map_type = self._name(MAPS.option, entry.map_type)
            return calls.map_create(map_type, source=self._source, kind=PROBE, why=why)
        prog, attach = self._prog(entry), self._attach(entry)
        return calls.prog_load(prog, attach, source=self._source, kind=PROBE, why=why)
