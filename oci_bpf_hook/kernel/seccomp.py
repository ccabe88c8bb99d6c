"""Runs a seccomp filter here, to find out what it answers to a system call.

From inside a container, a filter that refuses bpf(2) with EPERM looks like a token that is refused.
From outside, the filter's classic BPF can be read (`tracing.seccomp_filters`) and run on a call
that nobody makes, so the container isn't disturbed.
"""

from struct import Struct, error

from ..values import Value

# struct sock_filter: code, jt, jf, k; and struct seccomp_data: nr, arch, ip, args.
INSTRUCTION = Struct("=HBBI")
_DATA = Struct("=iIQ6Q")
_MASK = 0xFFFFFFFF
_MEMORY = 16

# The action in the upper half of what a filter returns (linux/seccomp.h); the lower half is an
# errno.
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000
USER_NOTIF = 0x7FC00000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000
_ACTION = 0xFFFF0000
_NAMES = {
    KILL_PROCESS: "kills the process",
    KILL_THREAD: "kills the thread",
    TRAP: "sends SIGSYS",
    USER_NOTIF: "asks a supervisor",
    TRACE: "asks a tracer",
}


class FilterError(ValueError):
    """These bytes aren't a classic BPF program that the kernel would have taken."""


class Answer(Value):
    """What filters do with a call: the `action`, and the `errno` if the action is ERRNO."""

    __slots__ = ("action", "errno")
    action: int
    errno: int

    @property
    def allows(self) -> bool:
        """Whether the kernel makes the call."""
        return self.action in (ALLOW, LOG)

    def __str__(self) -> str:
        if self.allows:
            return "lets it through"
        return _NAMES.get(self.action, f"returns errno {self.errno}")


def answer(filters: list[bytes], number: int, arch: int, arguments: tuple[int, ...]) -> Answer:
    """What a process with these `filters`, each an array of sock_filter, gets for a call.

    `arch` is an AUDIT_ARCH_*.  If the filters answer differently the most severe answer counts, as
    in the kernel (seccomp_run_filters).  Raises FilterError.
    """
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = _DATA.pack(number, arch, 0, *padded)
    results = [_run(program, data) for program in filters]
    worst = min(results, key=_severity, default=ALLOW)
    return Answer(action=worst & _ACTION, errno=worst & ~_ACTION)


def _severity(result: int) -> int:
    """The action as a signed number, as the kernel compares them: KILL_PROCESS is the smallest."""
    action = result & _ACTION
    return action - (1 << 32) if action & 1 << 31 else action


def _run(program: bytes, data: bytes) -> int:
    try:
        code = list(INSTRUCTION.iter_unpack(program))
        return _Machine(data).run(code)
    except (error, IndexError):
        raise FilterError("the seccomp filter isn't understood") from None


class _Machine:
    """Classic BPF as seccomp has it: two registers, sixteen words of memory, jumps forward only."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.a = self.x = 0
        self.memory = [0] * _MEMORY

    def run(self, code: list[tuple[int, ...]]) -> int:
        at = 0
        while True:
            operation, if_true, if_false, k = code[at]
            at += 1
            kind = operation & 0x07
            if kind == 0x06:  # RET
                return self.a if operation & 0x18 == 0x10 else k
            if kind == 0x05:  # JMP
                at += k if operation & 0xF0 == 0 else self._jump(operation, k, if_true, if_false)
            elif kind == 0x04:  # ALU
                self.a = _alu(operation & 0xF0, self.a, self._operand(operation, k)) & _MASK
            elif kind in (0x00, 0x01):  # LD, LDX
                value = self._load(operation & 0xE0, k)
                self.a, self.x = (value, self.x) if kind == 0x00 else (self.a, value)
            elif kind in (0x02, 0x03):  # ST, STX
                self.memory[k] = self.a if kind == 0x02 else self.x
            elif operation & 0xF8 == 0x80:  # MISC, TXA
                self.a = self.x
            else:  # TAX
                self.x = self.a

    def _operand(self, operation: int, k: int) -> int:
        return self.x if operation & 0x08 else k

    def _jump(self, operation: int, k: int, if_true: int, if_false: int) -> int:
        other = self._operand(operation, k)
        kind = operation & 0xF0
        true = {
            0x10: self.a == other,
            0x20: self.a > other,
            0x30: self.a >= other,
            0x40: bool(self.a & other),
        }
        if kind not in true:
            raise FilterError(f"the seccomp filter has the unknown jump {operation:#x}")
        return if_true if true[kind] else if_false

    def _load(self, mode: int, k: int) -> int:
        if mode == 0x20:  # ABS: of seccomp_data, in words.
            return int(Struct("=I").unpack_from(self.data, k)[0])
        if mode == 0x60:  # MEM
            return self.memory[k]
        # LEN is the size of seccomp_data, and IMM the constant.
        return len(self.data) if mode == 0x80 else k


def _alu(kind: int, a: int, other: int) -> int:
    if kind == 0x30:  # DIV; in the kernel a filter that divides by 0 returns 0, which kills.
        return a // other if other else 0
    operations = {
        0x00: a + other,
        0x10: a - other,
        0x20: a * other,
        0x40: a | other,
        0x50: a & other,
        # The kernel refuses a filter with a constant shift by 32 or more.
        0x60: a << (other & 31),
        0x70: a >> (other & 31),
        0x80: -a,
        0xA0: a ^ other,
    }
    if kind not in operations:
        raise FilterError(f"the seccomp filter has the unknown operation {kind:#x}")
    return operations[kind]
