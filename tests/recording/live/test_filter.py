"""The seccomp filter, run as the kernel runs it."""

import struct

import pytest

from oci_bpf_hook.kernel.arch import ARCHES, Arch
from oci_bpf_hook.kernel.seccomp import ALLOW, USER_NOTIF
from oci_bpf_hook.recording.live import filter as seccomp


def action(arch: int, number: int) -> int:
    """What the filter says to the call `number` of an architecture."""
    data = struct.pack("=iIQ6Q", number if number < 1 << 31 else number - (1 << 32), arch, *[0] * 7)
    program = list(struct.iter_unpack("=HBBI", seccomp.program()))
    at = accumulator = 0
    while True:
        code, true, false, k = program[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x15:
            at += true if accumulator == k else false
        else:
            assert code == 0x06
            return int(k)


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: f"{arch.audit:#x}-{arch.bits}")
def test_only_bpf_is_notified(arch: Arch) -> None:
    for near in range(arch.bpf - 3, arch.bpf + 4):
        same = any((one.audit, one.bpf) == (arch.audit, near) for one in ARCHES)
        assert action(arch.audit, near) == (USER_NOTIF if same else ALLOW)


def test_the_number_of_one_is_another_call_of_another() -> None:
    numbers = {arch.bpf for arch in ARCHES}
    for arch in ARCHES:
        own = {one.bpf for one in ARCHES if one.audit == arch.audit}
        for number in numbers - own:
            assert action(arch.audit, number) == ALLOW


def test_an_architecture_that_nobody_knows() -> None:
    for arch in ARCHES:
        assert action(0x1234, arch.bpf) == ALLOW


def test_it_is_as_short_as_the_kernel_wants() -> None:
    # BPF_MAXINSNS.
    assert len(seccomp.program()) // 8 <= 4096
