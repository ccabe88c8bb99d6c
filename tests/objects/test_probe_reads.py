"""The probe for bpf_probe_read_kernel(): who needs it, by a real libbpf with exactly the advice."""

import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.advise import advice, feature_probes, objects
from oci_bpf_hook.advise.needs import CAPABILITIES, CAPABILITY, Needs
from oci_bpf_hook.bpf.names import PROGS
from tests.consumer.load import Libbpf
from tests.corpus.check import KERNEL
from tests.objects.test_advice import options
from tests.support.bpf import compile_text
from tests.support.consumer import library, missing
from tests.support.tokens import Loads

HEADERS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
"""
READS = """
SEC("%s") int reads(void *ctx)
{
    long found = 0;
    %s(&found, sizeof(found), ctx);
    return found ? 0 : 1;
}
"""
# Of each type of program for which bpf_probe_read() is there, and of others; those that every
# kernel of these tests loads.
ALIKE = (
    *("raw_tp/sched_switch", "raw_tp.w/sched_switch", "tp_btf/sched_switch", "iter/task"),
    *("perf_event", "syscall"),
)
OTHERS = (
    *("xdp", "tc", "socket", "cgroup_skb/egress", "cgroup/connect4", "cgroup/sysctl", "sockops"),
    *("sk_lookup", "sk_msg", "sk_reuseport", "flow_dissector", "lwt_in", "netfilter"),
)
TRACEPOINT = (PROGS.option, "tracepoint")
HERE = os.uname().machine
HELPERS = {112: "user", 113: "kernel", 114: "user_str", 115: "kernel_str"}

alike_here = pytest.mark.skipif(
    not feature_probes.read_alike([], HERE), reason=f"programs read otherwise on {HERE}"
)


@pytest.fixture(scope="module")
def loads() -> Iterator[Loads]:
    if lacks := missing():
        pytest.skip(f"this host lacks {', '.join(lacks)}; `make test` installs what it can")
    with Loads() as found:
        yield found


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the user namespace's root can read, too."""
    with tempfile.TemporaryDirectory(prefix="obh-reads-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def reading(section: str, helper: str = "bpf_probe_read_kernel") -> objects.Object:
    return objects.read(compile_text(HEADERS + READS % (section, helper)), "reads.o")


def advised(section: str, helper: str = "bpf_probe_read_kernel", **how: object) -> Needs:
    return advice.advise([reading(section, helper)], options(**{"machine": HERE, **how}), KERNEL)


def loaded(loads: Loads, directory: Path, section: str, helper: str, needs: Needs) -> list[int]:
    """The helpers that it calls once it is loaded with these needs; nothing if it isn't."""
    path = directory / "reads.o"
    path.write_bytes(compile_text(HEADERS + READS % (section, helper)))
    numbers = [CAPABILITIES[name] for option, name in needs.bits if option == CAPABILITY]
    report = loads.load(path, needs.masks(KERNEL.names), numbers)
    return list(report["programs"]["reads"]["helpers"]) if report["result"] == "ok" else []


@alike_here
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("section", ALIKE)
def test_left_out(loads: Loads, directory: Path, section: str, exact: bool) -> None:
    needs = advised(section, exact=exact)
    assert TRACEPOINT not in needs.bits
    assert loaded(loads, directory, section, "bpf_probe_read_kernel", needs) == [4]
    (said,) = (one.text for one in needs.warnings if one.code == feature_probes.LEFT_OUT)
    assert said.startswith("reads: libbpf probes for bpf_probe_read_kernel() with a program of the")
    assert "type tracepoint, which is left out here" in said


@pytest.mark.parametrize("section", OTHERS)
def test_kept(loads: Loads, directory: Path, section: str) -> None:
    """bpf_probe_read() isn't there for these, and with it in the program they aren't loaded."""
    needs = advised(section)
    assert TRACEPOINT in needs.bits
    assert feature_probes.LEFT_OUT not in {one.code for one in needs.warnings}
    assert loaded(loads, directory, section, "bpf_probe_read_kernel", needs) == [113]
    first = advised("socket", "bpf_probe_read")
    less = (needs | first).without([TRACEPOINT])
    assert loaded(loads, directory, section, "bpf_probe_read_kernel", less) == []


@alike_here
@pytest.mark.parametrize("helper", HELPERS.values())
def test_each_helper(loads: Loads, directory: Path, helper: str) -> None:
    needs = advised("raw_tp/sched_switch", f"bpf_probe_read_{helper}")
    found = loaded(loads, directory, "raw_tp/sched_switch", f"bpf_probe_read_{helper}", needs)
    assert TRACEPOINT not in needs.bits
    assert found == [45 if helper.endswith("_str") else 4]


@pytest.mark.parametrize("machine", ["s390x", "sparc64", "riscv64", ""])
def test_other_machines(machine: str) -> None:
    needs = advised("raw_tp/sched_switch", machine=machine)
    assert TRACEPOINT in needs.bits
    assert feature_probes.LEFT_OUT not in {one.code for one in needs.warnings}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_type_of_program(machine: str) -> None:
    """Also those that this kernel doesn't have; the kprobe is cilium/ebpf's probe."""
    for section in ("kprobe/x", "kprobe.multi/x", "usdt/x:y", "fentry/x", "fexit/x", "lsm/x"):
        assert TRACEPOINT not in advised(section, machine=machine).bits
    for section in ("freplace/x", "lirc_mode2"):
        assert TRACEPOINT in advised(section, machine=machine).bits
    found = advised("iter/task", machine=machine, loader="cilium")
    assert (PROGS.option, "kprobe") not in found.bits
    assert feature_probes.LEFT_OUT in {one.code for one in found.warnings}
    assert (PROGS.option, "kprobe") in advised("xdp", machine=machine, loader="cilium").bits


def test_one_of_several_needs_it() -> None:
    """Whatever the others are; and where the type is needed anyway, nothing is left out."""
    text = HEADERS + READS % ("iter/task", "bpf_probe_read_kernel")
    xdp = (READS % ("xdp", "bpf_probe_read_kernel")).replace("reads(", "packets(")
    both = objects.read(compile_text(text + xdp), "both")
    assert TRACEPOINT in advice.advise([both], options(), KERNEL).bits
    own = (READS % ("tp/a/b", "bpf_probe_read")).replace("reads(", "own(")
    for found in (
        [objects.read(compile_text(text + own), "one")],
        [reading("iter/task"), objects.read(compile_text(HEADERS + own), "other")],
    ):
        needs = advice.advise(found, options(), KERNEL)
        assert feature_probes.LEFT_OUT not in {one.code for one in needs.warnings}
        assert (PROGS.option, "socket_filter") not in needs.bits


# Reads its own task and what its caller has put there, by each helper and by what takes its place,
# and counts what isn't the same.
SAME = """
struct arguments { __u64 address; };
static int differ(long one, long other, const char *first, const char *second, int size)
{
    /* Which error is returned for an address where nothing is differs: ERANGE or EFAULT. */
    int found = one != other && (one >= 0 || other >= 0);
    for (int i = 0; i < size; i++)
        found += first[i] != second[i];
    return found;
}
SEC("syscall") int same(struct arguments *given)
{
    char one[64] = {}, other[64] = {};
    void *task = (void *)bpf_get_current_task(), *user = (void *)given->address;
    int found = 0;
#define COMPARE(helper, fallback, from) do { \\
    long a = helper(one, sizeof(one), from), b = fallback(other, sizeof(other), from); \\
    found += differ(a, b, one, other, sizeof(one)); \\
} while (0)
    COMPARE(bpf_probe_read_kernel, bpf_probe_read, task);
    COMPARE(bpf_probe_read_kernel_str, bpf_probe_read_str, task);
    COMPARE(bpf_probe_read_user, bpf_probe_read, user);
    COMPARE(bpf_probe_read_user_str, bpf_probe_read_str, user);
    COMPARE(bpf_probe_read_kernel, bpf_probe_read, (void *)0);
    COMPARE(bpf_probe_read_user, bpf_probe_read, (void *)0);
    found += one[0] == 0 && other[0] == 0 ? 0 : 1;
    bpf_probe_read(one, sizeof(one), user);
    return found * 256 + one[0];
}
"""


class TestRun(ctypes.Structure):
    """libbpf's struct bpf_test_run_opts."""

    __test__ = False
    _fields_ = (
        ("size", ctypes.c_size_t),
        ("data", ctypes.c_void_p * 2),
        ("data_sizes", ctypes.c_uint32 * 2),
        ("given", ctypes.c_void_p),
        ("returned", ctypes.c_void_p),
        ("given_size", ctypes.c_uint32),
        ("returned_size", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
        ("rest", ctypes.c_uint32 * 5),
    )


@alike_here
def test_that_they_read_the_same(tmp_path: Path) -> None:
    if lacks := missing():
        pytest.skip(f"this host lacks {', '.join(lacks)}; `make test` installs what it can")
    path = tmp_path / "same.o"
    path.write_bytes(compile_text(HEADERS + SAME))
    libbpf = Libbpf(str(library()))
    obj = libbpf.bpf_object__open_file(os.fsencode(path), None)
    try:
        assert obj
        assert libbpf.bpf_object__load(obj) == 0, libbpf.log
        program = libbpf.bpf_program__fd(libbpf.bpf_object__find_program_by_name(obj, b"same"))
        mine = ctypes.create_string_buffer(b"*what the caller has put there", 64)
        given = ctypes.c_uint64(ctypes.addressof(mine))
        how = TestRun(size=ctypes.sizeof(TestRun), given=ctypes.addressof(given), given_size=8)
        assert libbpf.bpf_prog_test_run_opts(program, ctypes.byref(how)) == 0
    finally:
        libbpf.bpf_object__close(obj)
    # What it read last shows that it has read at all.
    assert how.result == ord("*")
