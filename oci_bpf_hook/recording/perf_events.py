"""Notices the calls of perf_event_open(2) in a trace of strace's.

They ask for nothing that can be delegated, and so `strace` reads only bpf(2).  But a container in a
user namespace is refused most of these calls, which whoever reads the recording has to know.
"""

import re
from collections.abc import Iterable, Iterator

# What an event is for, with the words for people; a recording counts its calls by these names.
TRACEPOINT = "tracepoint"
PROBE = "probe"
EVENT = "event"
BUFFER = "buffer"
WORDS = {
    TRACEPOINT: "its tracepoints",
    PROBE: "its kprobes or uprobes",
    EVENT: "its perf events",
}
KINDS = (*WORDS, BUFFER)

_CALL = re.compile(
    r"(?:^|\s)perf_event_open\(\{type=(?P<type>[^,}]*)"
    r"(?:, size=[^,}]*)?(?:, config=(?P<config>[^,}]*))?"
)
# linux/perf_event.h; with -X raw strace shows numbers.
_TYPES = ("HARDWARE", "SOFTWARE", "TRACEPOINT", "HW_CACHE", "RAW", "BREAKPOINT")
_NAMED = re.compile(r"PERF_TYPE_(\w+)")
_BPF_OUTPUT = re.compile(r"PERF_COUNT_SW_BPF_OUTPUT|0xa|10")


def noticing(lines: Iterable[str], found: dict[str, int]) -> Iterator[str]:
    """The same `lines`; the calls in them are counted in `found`, by one of KINDS."""
    for line in lines:
        call = _CALL.search(line) if "perf_event_open(" in line else None
        if call:
            kind = _kind(call["type"], call["config"] or "")
            found[kind] = found.get(kind, 0) + 1
        yield line


def _kind(written: str, config: str) -> str:
    what = _type(written)
    if what == "TRACEPOINT":
        return TRACEPOINT
    if what == "SOFTWARE" and _BPF_OUTPUT.match(config):
        return BUFFER
    # The kernel numbers the types of kprobes and uprobes, like those of other PMUs, when it boots.
    return EVENT if what else PROBE


def _type(written: str) -> str:
    """The type's name, or "" if it has none."""
    if named := _NAMED.search(written):
        return named[1]
    try:
        return _TYPES[int(written.split(maxsplit=1)[0], 0)]
    except (IndexError, ValueError):
        return ""
