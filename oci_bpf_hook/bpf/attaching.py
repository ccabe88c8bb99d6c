"""Says which programs are attached by perf_event_open(2), and what there is to know about that.

A token lets a container load these programs, but perf_event_open(2) knows no tokens.  `lint`, the
checks of the policy, `advise`, `record` and `doctor` all say so in the words of this module.

The sources are perf_kprobe_event_init and perf_uprobe_event_init in Linux's kernel/events/core.c,
which ask for CAP_PERFMON in the initial user namespace whatever the sysctl says, and perf_allow_cpu
in include/linux/perf_event.h, which asks for it if kernel.perf_event_paranoid is above 0.  Both
were tried in a user namespace on Linux 7.2, with each value of the sysctl.
"""

from .type_facts import BY_PERF_EVENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# The codes of the findings, wherever they are reported.
PERF_ATTACH = "perf-attach"
PERF_BUFFER = "perf-buffer"
# What is true of such programs, as words that go after their names, and what to do about it.
WHY = (
    "attaching needs perf_event_open(2), which takes no token and wants privilege on the host: "
    "kprobes and uprobes are refused, and tracepoints and perf events work if the host's "
    "kernel.perf_event_paranoid is 0 or less"
)
FIX = "use kprobe.multi, uprobe.multi, raw_tp or tp_btf, which don't need that call"

# A program of the type kprobe with one of these attach types is attached by a link instead.
_LINKS = frozenset(
    ("trace_kprobe_multi", "trace_kprobe_session", "trace_uprobe_multi", "trace_uprobe_session")
)


def by_perf_event(prog: str, attach: str | None) -> bool:
    """Whether a program of the type `prog`, loaded with `attach`, is attached that way."""
    return prog in BY_PERF_EVENT and not (prog == "kprobe" and attach in _LINKS)


def types_by_perf_event(progs: "Iterable[str]", attachs: "Collection[str]") -> list[str]:
    """Those of the delegated `progs` whose programs are all attached that way.

    With one of `attachs` a program of the type kprobe may be attached in another way.
    """
    links = not _LINKS.isdisjoint(attachs)
    return [one for one in progs if one in BY_PERF_EVENT and not (one == "kprobe" and links)]


def perf_attach(names: "Iterable[str]") -> str:
    """The whole sentence about these programs, types or calls."""
    return f"{', '.join(names)}: {WHY}; {FIX}"


def perf_buffer(what: str) -> str:
    """The whole sentence about `what`, a perf buffer with its verb."""
    return (
        f"{what} filled through perf_event_open(2), which takes no token and fails in a container "
        "unless the host's kernel.perf_event_paranoid is 0 or less; use a ringbuf instead"
    )
