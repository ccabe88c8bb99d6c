"""The numbers of the system calls that a recording needs, for each architecture (AUDIT_ARCH_*).

The numbers are ABI and differ between architectures, so there is no default: an architecture that
isn't in the table can't be recorded.  They are from the kernel's syscall tables; a test compares
every row with libseccomp's.
"""

from ..values import Value


class Arch(Value):
    """One architecture of system calls.

    `audit` is its AUDIT_ARCH_*; `machines` are uname(2)'s names for a machine on which it is the
    native one; `bits` is the size of a pointer; `bpf`, `seccomp` and `perf_event_open` are numbers
    of calls.
    """

    __slots__ = ("audit", "bits", "bpf", "machines", "perf_event_open", "seccomp")
    audit: int
    machines: tuple[str, ...]
    bits: int
    bpf: int
    seccomp: int
    perf_event_open: int


def _arch(
    audit: int, bits: int, numbers: tuple[int, int, int], machines: tuple[str, ...] = ()
) -> Arch:
    bpf, seccomp, perf = numbers
    return Arch(
        audit=audit, machines=machines, bits=bits, bpf=bpf, seccomp=seccomp, perf_event_open=perf
    )


# include/uapi/asm-generic/unistd.h, which newer architectures share.
_GENERIC = (280, 277, 241)
_POWERPC = (361, 358, 319)
_O32, _N64, _N32 = (4355, 4352, 4333), (5315, 5312, 5292), (6319, 6316, 6296)
_X32 = 0x40000000

# Where several architectures have the same machine's name, the machine's native one comes first.
ARCHES = (
    _arch(0xC000003E, 64, (321, 317, 298), ("x86_64",)),
    # x32 differs only by a bit in the number of the call.
    _arch(0xC000003E, 32, (_X32 | 321, _X32 | 317, _X32 | 298)),
    _arch(0x40000003, 32, (357, 354, 336), ("i386", "i486", "i586", "i686", "x86_64")),
    _arch(0xC00000B7, 64, _GENERIC, ("aarch64",)),
    _arch(0x40000028, 32, (386, 383, 364), ("armv6l", "armv7l", "armv8l", "aarch64")),
    _arch(0xC00000F3, 64, _GENERIC, ("riscv64",)),
    _arch(0xC0000102, 64, _GENERIC, ("loongarch64",)),
    _arch(0xC0000015, 64, _POWERPC, ("ppc64le",)),
    _arch(0x80000015, 64, _POWERPC, ("ppc64",)),
    _arch(0x00000014, 32, _POWERPC, ("ppc", "ppc64")),
    _arch(0x80000016, 64, (351, 348, 331), ("s390x",)),
    # uname(2) says mips64 for both byte orders, so nobody records natively there.
    _arch(0xC0000008, 64, _N64),
    _arch(0x80000008, 64, _N64),
    _arch(0xE0000008, 32, _N32),
    _arch(0xA0000008, 32, _N32),
    _arch(0x40000008, 32, _O32),
    _arch(0x00000008, 32, _O32),
)


def native(machine: str, bits: int) -> Arch | None:
    """The architecture of our own processes on `machine`, with pointers of `bits`, or None."""
    return next((one for one in ARCHES if machine in one.machines and one.bits == bits), None)
