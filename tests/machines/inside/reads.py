"""Which types of programs may call bpf_probe_read(), which libbpf puts in the place of newer ones.

`advise` leaves out libbpf's probe for these, so this has to hold for the types that the kernel of
most hosts of these tests doesn't have.
"""

from typing import Final

from tests.consumer.load import Libbpf, load
from tests.support.consumer import library

from .cases import ENDS, Context, on

# Sections by the name of their object, of the types for which it is there and of some others.
ALIKE: Final = {
    "kprobe": "kprobe/do_sys_openat2",
    "kprobe-multi": "kprobe.multi/do_sys_openat2",
    "tracepoint": "tracepoint/sched/sched_switch",
    "perf-event": "perf_event",
    "raw-tracepoint": "raw_tp/sched_switch",
    "raw-tracepoint-writable": "raw_tp.w/sched_switch",
    "tp-btf": "tp_btf/sched_switch",
    "fentry": "fentry/do_sys_openat2",
    "iter": "iter/task",
    "lsm": "lsm/file_open",
    "syscall": "syscall",
}
OTHERS: Final = {"xdp": "xdp", "tc": "tc", "cgroup-skb": "cgroup_skb/egress", "socket": "socket"}
SOURCE: Final = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("%s") int reads(void *ctx)
{
    long found = 0;
    bpf_probe_read(&found, sizeof(found), ctx);
    return 0;
}
"""


@on(*ENDS)
def case_programs_with_bpf_probe_read(context: Context) -> None:
    """As root, without a token: what the verifier lets them call doesn't depend on it."""
    libbpf = Libbpf(str(library()))
    for name in (*ALIKE, *OTHERS):
        report = load(libbpf, str(context.files / f"reads-{name}.o"))
        assert (report["result"] == "ok") == (name in ALIKE), (name, report["log"])
        if name in ALIKE:
            assert report["programs"]["reads"]["helpers"] == [4], name
        else:
            assert any("bpf_probe_read#4" in line for line in report["log"]), report["log"]
