"""What differs by architecture: the number of bpf(2), and the name that seccomp knows it by.

There is no default: on a machine that isn't here, finding out says that it can't.
"""

from .record import Record


class Machine(Record):
    """`bpf`: the number of bpf(2); `audit`: AUDIT_ARCH_* (linux/audit.h); `bits` of a pointer."""

    __slots__ = ("audit", "bits", "bpf")
    bpf: int
    audit: int
    bits: int


# By uname(2)'s machine.
MACHINES = {
    "aarch64": Machine(bpf=280, audit=0xC00000B7, bits=64),
    "armv7l": Machine(bpf=386, audit=0x40000028, bits=32),
    "i686": Machine(bpf=357, audit=0x40000003, bits=32),
    "loongarch64": Machine(bpf=280, audit=0xC0000102, bits=64),
    "ppc64le": Machine(bpf=361, audit=0xC0000015, bits=64),
    "riscv64": Machine(bpf=280, audit=0xC00000F3, bits=64),
    "s390x": Machine(bpf=351, audit=0x80000016, bits=64),
    "x86_64": Machine(bpf=321, audit=0xC000003E, bits=64),
}
