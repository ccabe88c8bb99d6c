"""What a call has returned, learned without stopping anybody.

A notification comes before the call, and seccomp has none for its end.  What we tried instead:

- ptrace(2) tells the end, but takes the program's own place as a tracer's subject, slows every
  signal down, and to catch a thread that waits in seccomp it has to be interrupted, after which
  the verifier gives up with EAGAIN: the program would behave otherwise.
- to make the same call ourselves first tells what it would give, not what it gave, doubles the
  verifier's work and leaves traces (a prog_array takes its owner from the first that uses it).
- to look which fds have appeared says nothing of errors, and libbpf closes its probes' at once.

But the notification has the address that the call returns to.  A hardware breakpoint there, of
perf_event_open(2), for this thread alone, samples the register with the result and its thread
runs on: no signal, no stop, nothing that the program could see.
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
# struct perf_event_attr up to the first field behind what is used (PERF_ATTR_SIZE_VER5).
_ATTR_SIZE = 112
_DATA_HEAD = 1024
_HEADER = Struct("=IHH")
_ABI_32 = 1
# AUDIT_ARCH_*: which of perf's registers (asm/perf_regs.h) has the result, and the length that
# hw_breakpoint takes for an instruction.  Elsewhere there are no such breakpoints, or a result
# is more than a register.
_REGISTERS = {
    0xC000003E: (0, 8),  # x86_64: ax
    0x40000003: (0, 8),  # i386 on it
    0xC00000B7: (0, 4),  # aarch64: x0
}


class Breakpoint:
    """The return of one thread from the call that it waits in; to be closed."""

    def __init__(self, thread: int, arch: int, address: int) -> None:
        """Watch `thread` come to `address`.  Raises OSError where that can't be."""
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
            # One page of the kernel's words, and one for samples: only the first is wanted.
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
        self._map.close()
        os.close(self.fd)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
