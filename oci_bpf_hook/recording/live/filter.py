"""The seccomp filter: it notifies of every bpf(2), and lets everything else through.

It is classic BPF, written by hand: a `struct sock_filter` has 8 bytes, and only four kinds of
instruction are needed.
"""

from _struct import Struct

from ...kernel.arch import ARCHES, Arch
from ...kernel.seccomp import ALLOW, USER_NOTIF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_INSTRUCTION = Struct("=HBBI")
# BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K of linux/bpf_common.h.
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
# struct seccomp_data: nr, arch, instruction_pointer, args.
_NR, _ARCH = 0, 4


def program(arches: "Iterable[Arch]" = ARCHES) -> bytes:
    """The filter's instructions, as the kernel takes them.

    A number means another call on another architecture, so the architecture is checked first.
    """
    calls: dict[int, list[int]] = {}
    for arch in arches:
        calls.setdefault(arch.audit, []).append(arch.bpf)
    parts = [_INSTRUCTION.pack(_LOAD, 0, 0, _ARCH)]
    for audit, numbers in calls.items():
        # For another architecture, jump over the load of the number, its comparisons and both
        # returns.
        parts.append(_INSTRUCTION.pack(_JUMP_EQUAL, 0, len(numbers) + 3, audit))
        parts.append(_INSTRUCTION.pack(_LOAD, 0, 0, _NR))
        for at, number in enumerate(numbers):
            parts.append(_INSTRUCTION.pack(_JUMP_EQUAL, len(numbers) - at, 0, number))
        parts.append(_INSTRUCTION.pack(_RETURN, 0, 0, ALLOW))
        parts.append(_INSTRUCTION.pack(_RETURN, 0, 0, USER_NOTIF))
    parts.append(_INSTRUCTION.pack(_RETURN, 0, 0, ALLOW))
    return b"".join(parts)
