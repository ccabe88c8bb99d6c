"""Finds what a program does with pointers into packets that takes CAP_PERFMON.

Without it the verifier lets no pointer become a number, and no register be added to one (Linux:
kernel/bpf/verifier.c, adjust_ptr_min_max_vals, sanitize_ptr_alu and check_cond_jmp_op).  This
module follows the pointers that a program takes from its context through registers and the stack,
within one function.  The verifier knows far more, and may refuse programs that look fine here.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from .elf import ByteOrder

# Where `data`, `data_end` and `data_meta` are in the context, by the type of the program.
_XDP = {0: "data", 4: "end", 8: "data"}
_SKB = {76: "data", 80: "end", 140: "data"}
_CONTEXTS = {
    "xdp": _XDP,
    **dict.fromkeys(("sched_cls", "sched_act", "cgroup_skb", "sk_skb"), _SKB),
    **dict.fromkeys(("lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "flow_dissector"), _SKB),
}
WITH_PACKETS = frozenset(_CONTEXTS)

# What a register may hold, as bits.
_NUMBER, _CONTEXT, _DATA, _END = 1, 2, 4, 8
_POINTERS = _CONTEXT | _DATA | _END
_FRAME = 10
# A call leaves numbers in the registers that it may use.
_SCRATCHED = (_NUMBER,) * 6
_EXIT, _CALL, _JA, _JA32 = 0x95, 0x85, 0x05, 0x06
_MOV, _ADD, _SUB, _ADD_NUMBER, _SUB_NUMBER = 0xBF, 0x0F, 0x1F, 0x07, 0x17
_LOAD_WORD, _LOAD, _STORE, _LOAD_64 = 0x61, 0x79, 0x7B, 0x18
# Where the verifier lets a pointer be stored on the stack, and how often an instruction is looked
# at, on average: for what compilers make three times are enough.
_STACK = range(-512, 0, 8)
_OFTEN = 16
# Longer programs aren't followed: the states of all their instructions would take too much memory.
_LONGEST = 1 << 19


class _Instruction(NamedTuple):
    code: int
    dst: int
    src: int
    offset: int
    immediate: int


class _State(NamedTuple):
    """The registers, and what was stored on the stack, by its offset; both are immutable."""

    registers: tuple[int, ...]
    stack: dict[int, int]


def takes_perfmon(code: bytes, order: ByteOrder, prog: str) -> str | None:
    """What a program of the type `prog` does that takes CAP_PERFMON; None if nothing is found."""
    fields = _CONTEXTS.get(prog)
    # Most types have no pointers to look for.
    if fields is None or len(code) > _LONGEST:
        return None
    layout = Struct(("<" if order == "little" else ">") + "BBhi")
    instructions = list(layout.iter_unpack(code[: len(code) - len(code) % layout.size]))
    if not instructions:
        return None
    start = _State((_NUMBER, _CONTEXT, *(_NUMBER,) * 9), {})
    states: dict[int, _State] = {0: start}
    waiting = [0]
    for _ in range(_OFTEN * len(instructions)):
        if not waiting:
            break
        at = waiting.pop()
        one, state = _decoded(instructions[at], order), states[at]
        found = _prohibited(one, state.registers)
        if found:
            return found
        after = _execute(one, state, fields)
        for following in _following(at, one):
            if not 0 <= following < len(instructions):
                continue
            before = states.get(following)
            merged = _merge(before, after)
            if merged != before:
                states[following] = merged
                waiting.append(following)
    return None


def _decoded(instruction: tuple[int, ...], order: ByteOrder) -> _Instruction:
    operation, registers, offset, immediate = instruction
    low, high = registers & 15, registers >> 4
    dst, src = (low, high) if order == "little" else (high, low)
    return _Instruction(operation, min(dst, _FRAME), min(src, _FRAME), offset, immediate)


def _prohibited(one: _Instruction, registers: tuple[int, ...]) -> str | None:
    dst, src = registers[one.dst], registers[one.src]
    if one.code == _SUB and dst & _POINTERS:
        return "takes the difference of pointers"
    if one.code == _ADD and (dst | src) & _POINTERS:
        return "adds a number that isn't constant to a pointer"
    compares = one.code & 7 == 5 and one.code not in (_EXIT, _CALL, _JA)
    if compares and not one.code & 8 and dst & _POINTERS and not dst & _NUMBER:
        return "compares a pointer with a number"
    return None


def _execute(one: _Instruction, state: _State, fields: dict[int, str]) -> _State:
    registers, stack = state
    code, dst, src, offset, _ = one
    if code == _STORE:
        if dst == _FRAME and offset in _STACK:
            return _State(registers, {**stack, offset: registers[src]})
        return state
    if code == _CALL:
        return _State((*_SCRATCHED, *registers[len(_SCRATCHED) :]), stack)
    if code == _MOV:
        held = registers[src]
    elif code == _LOAD_WORD and registers[src] == _CONTEXT and offset in fields:
        held = _DATA if fields[offset] == "data" else _END
    elif code == _LOAD and src == _FRAME:
        held = stack.get(offset, _NUMBER)
    elif code & 7 in (0, 1, 4, 7) and code not in (_ADD_NUMBER, _SUB_NUMBER):
        held = _NUMBER
    else:
        return state
    if held == registers[dst]:
        return state
    return _State((*registers[:dst], held, *registers[dst + 1 :]), stack)


def _following(at: int, one: _Instruction) -> Iterator[int]:
    if one.code == _EXIT:
        return
    if one.code == _LOAD_64:
        yield at + 2
        return
    if one.code == _JA32:
        yield at + 1 + one.immediate
        return
    if one.code & 7 in (5, 6) and one.code != _CALL:
        yield at + 1 + one.offset
    if one.code != _JA:
        yield at + 1


def _merge(one: _State | None, other: _State) -> _State:
    if one is None or one == other:
        return other
    stack = dict(one.stack)
    for offset, held in other.stack.items():
        stack[offset] = stack.get(offset, 0) | held
    registers = (a | b for a, b in zip(one.registers, other.registers, strict=True))
    return _State(tuple(registers), stack)
