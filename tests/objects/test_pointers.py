"""What takes CAP_PERFMON; that the verifier is of the same opinion, the corpus shows."""

import pytest

from oci_bpf_hook.advise import objects
from oci_bpf_hook.advise.pointers import takes_perfmon
from tests.support.bpf import compile_text, compiled

HEADERS = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
XDP = HEADERS + 'SEC("xdp") int program(struct xdp_md *ctx) {{ {} }}'
SKB = HEADERS + 'SEC("tc") int program(struct __sk_buff *ctx) {{ {} }}'
ENDS = "void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;"
LENGTH = f"{ENDS} return end - data;"
VARIABLE = (
    f"{ENDS} if (data + 20 > end) return 0; data += (*(__u8 *)data & 15) * 4;"
    " return data + 20 > end ? 0 : *(__u8 *)data;"
)
# A call in between has the pointers kept on the stack or in other registers.
KEPT = f"{ENDS} bpf_ktime_get_ns(); return end - data;"
CONSTANT = f"{ENDS} return data + 14 > end ? 0 : *(__u8 *)(data + 13);"
DIFFERENCE = "takes the difference of pointers"
ADDITION = "adds a number that isn't constant to a pointer"


def found(text: str, by: str = "clang", prog: str = "xdp") -> str | None:
    read = objects.read(compile_text(text, by=by), "")
    (program,) = read.programs
    return takes_perfmon(program.code, read.order, prog)


@pytest.mark.parametrize("by", ["clang", "clang-be"])
@pytest.mark.parametrize(("source", "prog"), [(XDP, "xdp"), (SKB, "sched_cls")])
@pytest.mark.parametrize(
    ("body", "expected"),
    [(LENGTH, DIFFERENCE), (KEPT, DIFFERENCE), (VARIABLE, ADDITION), (CONSTANT, None)],
)
def test_found(source: str, prog: str, body: str, expected: str | None, by: str) -> None:
    assert found(source.format(body), by, prog) == expected


def test_numbers() -> None:
    assert found(XDP.format("return bpf_get_prandom_u32() - ctx->ingress_ifindex;")) is None


def test_a_null_check_of_the_context() -> None:
    assert found(XDP.format("return ctx ? 1 : 2;")) == "compares a pointer with a number"


def test_other_types_and_nothing() -> None:
    assert found(XDP.format(LENGTH), prog="kprobe") is None
    assert takes_perfmon(b"", "little", "xdp") is None


@pytest.mark.parametrize(
    ("name", "prog"),
    [("xdp_firewall", "xdp"), ("tc", "sched_cls"), ("tcx", "sched_cls"), ("cgroup_skb",) * 2],
)
def test_what_the_profiles_are_for(name: str, prog: str) -> None:
    read = objects.read(compiled(name), "")
    for program in read.programs:
        assert takes_perfmon(program.code, read.order, prog) is None


def test_it_ends() -> None:
    """Whatever the instructions are: jumps back to themselves, and everywhere."""
    loop = bytes([0x05, 0, 0xFF, 0xFF, 0, 0, 0, 0])
    assert takes_perfmon(loop, "little", "xdp") is None
    code = b"".join(
        bytes([0x1D, 0x21]) + (-number).to_bytes(2, "little", signed=True) + bytes(4)
        for number in range(1, 3000)
    )
    assert takes_perfmon(code, "little", "xdp") is None


def test_the_stack() -> None:
    """What is stored there is still a pointer when it's loaded again."""
    code = bytes.fromhex(
        "6116000000000000"  # r6 = *(u32 *)(r1 + 0)
        "7b6af8ff00000000"  # *(u64 *)(r10 - 8) = r6
        "79a7f8ff00000000"  # r7 = *(u64 *)(r10 - 8)
        "b700000001000000"  # r0 = 1
        "0f70000000000000"  # r0 += r7
        "9500000000000000"  # exit
    )
    assert takes_perfmon(code, "little", "xdp") == ADDITION
    # From another place comes a number.
    assert takes_perfmon(code.replace(b"\x79\xa7\xf8", b"\x79\xa7\xf0"), "little", "xdp") is None


def test_where_no_pointer_can_be() -> None:
    """The verifier wants the stack aligned, and what can't be there takes no memory of ours."""
    code = bytes.fromhex(
        "7b1af7ff00000000"  # *(u64 *)(r10 - 9) = r1
        "79a7f7ff00000000"  # r7 = *(u64 *)(r10 - 9)
        "0f70000000000000"  # r0 += r7
    )
    assert takes_perfmon(code, "little", "xdp") is None
    aligned = code.replace(b"\xf7\xff", b"\xf8\xff")
    assert takes_perfmon(aligned, "little", "xdp") == ADDITION


def test_longer_than_any() -> None:
    subtracts = bytes.fromhex("1f11000000000000")
    assert takes_perfmon(subtracts, "little", "xdp") == DIFFERENCE
    assert takes_perfmon(subtracts * (1 << 17), "little", "xdp") is None


def test_copies() -> None:
    """A copy of a pointer is one, and what it was copied over isn't any more."""
    copied = bytes.fromhex("bf160000000000000f60000000000000")  # r6 = r1, r0 += r6
    assert takes_perfmon(copied, "little", "xdp") == ADDITION
    over = bytes.fromhex("bf010000000000000f10000000000000")  # r1 = r0, r0 += r1
    assert takes_perfmon(over, "little", "xdp") is None


def test_numbers_of_64_bits() -> None:
    """Their second half is no instruction, whatever it looks like."""
    code = bytes.fromhex(
        "1800000000000000"  # r0 = a number,
        "1f11000000000000"  # the upper half of which is here
        "9500000000000000"  # exit
    )
    assert takes_perfmon(code, "little", "xdp") is None
    assert takes_perfmon(code[8:], "little", "xdp") == DIFFERENCE
