"""Finds out what a call has returned, without stopping the program.

A notification comes before the call, and seccomp sends none at its end.  These other ways were
tried:

- ptrace(2) shows the end, but only one tracer can attach to the program, every signal gets slower,
  and a thread that waits in seccomp has to be interrupted to be caught, after which the verifier
  gives up with EAGAIN: the program would behave otherwise.
- Making the same call ourselves first tells what it would return, not what it returned, doubles
  the verifier's work and leaves traces (a prog_array takes its owner from its first user).
- Looking for new fds tells nothing of errors, and libbpf closes its probes' fds at once.

But the notification has the address that the call returns to.  A hardware breakpoint at that
address, made by perf_event_open(2) for this thread alone, samples the register with the result, and
the thread runs on: there is no signal, no stop, and nothing that the program could see.
"""

import mmap
import os
from struct import Struct, pack_into, unpack_from

from . import syscalls

_PERF_TYPE_BREAKPOINT = 5
_PERF_SAMPLE_REGS_USER = 1 << 12
_PERF_RECORD_SAMPLE = 9
_HW_BREAKPOINT_X = 4
_EXCLUDE_KERNEL_AND_HV = 1 << 5 | 1 << 6
# struct perf_event_attr up to the first unused field (PERF_ATTR_SIZE_VER5).
_ATTR_SIZE = 112
_DATA_HEAD = 1024
_HEADER = Struct("=IHH")
_ABI_32 = 1
# By AUDIT_ARCH_*: which of perf's registers (asm/perf_regs.h) has the result, and which length
# hw_breakpoint takes for an instruction.  Other architectures have no such breakpoints, or a result
# takes more than a register.
_REGISTERS = {
    0xC000003E: (0, 8),  # x86_64: ax
    0x40000003: (0, 8),  # i386 on x86_64
    0xC00000B7: (0, 4),  # aarch64: x0
}


class Breakpoint:
    """The return of one thread from the call that it waits in; to be closed."""

    def __init__(self, thread: int, arch: int, address: int) -> None:
        """Watch for `thread` to reach `address`.  Raises OSError if that isn't possible."""
        if arch not in _REGISTERS:
            raise OSError(f"no breakpoints for the architecture {arch:#x}")
        register, length = _REGISTERS[arch]
        attr = bytearray(_ATTR_SIZE)
        pack_into(
            "=IIQQQ", attr, 0, _PERF_TYPE_BREAKPOINT, _ATTR_SIZE, 0, 1, _PERF_SAMPLE_REGS_USER
        )
        # flags; then wakeup_events, bp_type, bp_addr and bp_len.
        pack_into("=Q", attr, 40, _EXCLUDE_KERNEL_AND_HV)
        pack_into("=IIQQ", attr, 48, 1, _HW_BREAKPOINT_X, address, length)
        pack_into("=Q", attr, 80, 1 << register)
        self.fd = syscalls.perf_event_open(bytes(attr), thread)
        try:
            # One page for the kernel's header, and one for samples; only the first sample is
            # needed.
            self._map = mmap.mmap(self.fd, 2 * mmap.PAGESIZE)
        except OSError:
            os.close(self.fd)
            raise

    def result(self) -> int | None:
        """What the call returned, a negative errno for a failure; None if it hasn't yet."""
        (head,) = unpack_from("=Q", self._map, _DATA_HEAD)
        at = mmap.PAGESIZE
        while at - mmap.PAGESIZE < head:
            kind, _, size = _HEADER.unpack_from(self._map, at)
            if kind == _PERF_RECORD_SAMPLE:
                abi, value = unpack_from("=QQ", self._map, at + _HEADER.size)
                return _signed(value, 32 if abi == _ABI_32 else 64) if abi else None
            at += size
        return None

    def close(self) -> None:
        """Remove the breakpoint."""
        self._map.close()
        os.close(self.fd)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
