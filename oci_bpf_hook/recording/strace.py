"""Reads a trace of strace(1): `strace -f -v -e trace=bpf -o FILE COMMAND`, 6.1 and later.

Without -v a trace lacks the programs' instructions, and so says less (Entry.unseen).

It is a text for people, and comes from other people: a line that can't be parsed is an error with
the line's number, and a call in it is only a claim that somebody makes.
"""

import errno
import re
from _struct import Struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..bpf.names import ATTACHS, CMDS, MAPS, PROGS, Enum
from . import call
from .call import Call, Said, make
from .recording import RecordingError

# What precedes a call: the thread, which -o and a terminal show differently, with its name (-Y);
# times (-t, -r), the call's number (-n) and the place in the program (-i).
_LINE = re.compile(
    r"^(?:\[pid\s+(?P<bracketed>\d+)(?:<.*?>)?\]\s+|(?P<plain>\d+)(?:<.*?>)?\s+)?"
    r"\s*(?:\d\d:\d\d:\d\d(?:\.\d+)?\s+|\d+\.\d+\s+)?(?:\(\+\s*\d+\.\d+\)\s+)?"
    r"(?:\[\s*\d+\]\s+)?(?:\[[0-9a-f?]+\]\s+)?"
    r"(?P<rest>bpf\(.*|<\.\.\. bpf resumed>.*)$"
)
_ATTACHED = re.compile(r"strace: Process \d+ attached$")
_UNFINISHED = re.compile(r"\s*<unfinished \.\.\.>$")
_RESUMED = re.compile(r"^<\.\.\. bpf resumed>\s?")
# The call's duration (-T) comes last.
_RESULT = re.compile(
    r"\)\s+=\s+(?:(-?\d+)(?:<[^>]*>)?(?:\s+([A-Z0-9]+)\b.*)?(?:\s+<\d+\.\d+>)?|\?.*)$"
)
_KEY = re.compile(r"\s*(\w+)=")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"(?:\.\.\.)?')
_COMMENT = re.compile(r"/\*.*?\*/")
_WORD = re.compile(r"(?:/\*.*?\*/|\w+\([^()]*\)|[^,{}\[\]()])+")
_SPACE = re.compile(r"[\s,]*")
_DEEPEST = 16
# The fields for a map's BTF.
_MAP_TYPES = ("btf_key_type_id", "btf_value_type_id", "btf_vmlinux_value_type_id")
# The flags that matter; any other only has to differ from them.
_FLAGS = {
    "BPF_F_TOKEN_FD": 1 << 16,
    "BPF_F_MMAPABLE": 1 << 10,
    "BPF_F_XDP_HAS_FRAGS": 1 << 5,
}
_OTHER_FLAG = 1 << 30
_TOKEN = 1 << 16
# linux/bpf_common.h and linux/bpf.h, by strace's names.
_ENUMS = (
    (0, 1, ("LD", "LDX", "ST", "STX", "ALU", "JMP", "JMP32", "ALU64")),
    (0, 8, ("W", "H", "B", "DW")),
    (0, 8, ("K", "X")),
    (0, 8, ("TO_LE", "TO_BE")),
    (0, 0x20, ("IMM", "ABS", "IND", "MEM", "MEMSX")),
    (0xC0, 0, ("XADD", "ATOMIC")),
    (0, 0x10, ("ADD", "SUB", "MUL", "DIV", "OR", "AND", "LSH", "RSH", "NEG", "MOD", "XOR", "MOV")),
    (0xC0, 0x10, ("ARSH", "END")),
    (0, 0x10, ("JA", "JEQ", "JGT", "JGE", "JSET", "JNE", "JSGT", "JSGE", "CALL", "EXIT", "JLT")),
    (0xB0, 0x10, ("JLE", "JSLT", "JSLE")),
)
_CODES = {
    f"BPF_{name}": first + step * number
    for first, step, names in _ENUMS
    for number, name in enumerate(names)
}
_INSTRUCTION = Struct("=BBHI")
# What strace writes for the rest of a union that it leaves out without -v; and the commands whose
# flags are in the rest, for releases that don't know them.
_REST = "..."
_FLAGS_LAST = (call.BTF_LOAD, call.BTF_GET_FD_BY_ID)
# A code that no probe has.
_NO_CODE = 0xFF


def calls(lines: Iterable[str], enums: Mapping[str, Enum]) -> Iterator[Call]:
    """The calls of bpf(2) in a trace, in the order in which they ended.

    If strace doesn't show whether a call came with a token, it did if any call did.  Raises
    RecordingError with the number of a line that is wrong, and if there is no call.
    """
    tokens = False
    waiting: list[tuple[Call, bool]] = []
    for found, shown in _calls(lines, enums):
        tokens = tokens or found.token
        waiting.append((found, shown))
        if tokens or (shown and len(waiting) == 1):
            yield from _settled(waiting, token=tokens)
            waiting.clear()
    yield from _settled(waiting, token=False)


def _settled(waiting: Iterable[tuple[Call, bool]], *, token: bool) -> Iterator[Call]:
    for one, shown in waiting:
        yield one if shown else one.with_token(token)


def _calls(lines: Iterable[str], enums: Mapping[str, Enum]) -> Iterator[tuple[Call, bool]]:
    """The calls, each with whether strace shows if it came with a token."""
    begun: dict[int, str] = {}
    some = False
    for number, line in _whole(lines):
        found = _LINE.match(line)
        if not found:
            continue
        some = True
        tid = int(found["bracketed"] or found["plain"] or 0)
        text = found["rest"]
        if text.startswith("<"):
            text = begun.pop(tid, "") + _RESUMED.sub("", text)
        if _UNFINISHED.search(text):
            begun[tid] = _UNFINISHED.sub("", text)
            continue
        try:
            yield _call(text, tid, enums)
        except RecordingError as error:
            raise RecordingError(f"line {number}: {error}") from None
    if not some:
        raise RecordingError(
            "there is no call of bpf(2) in it; make it with strace -f -v -e trace=bpf -o FILE"
        )


def _whole(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines with their numbers; puts together those that strace's own messages have broken.

    Without -o these come in the middle of a line; a program's output does, too, and stays there.
    """
    begun = ""
    for number, line in enumerate(lines, 1):
        text = begun + line.rstrip("\n")
        plain = _ATTACHED.sub("", text)
        begun = plain if plain != text and "bpf(" in plain else ""
        if not begun:
            yield number, text


def _call(text: str, tid: int, enums: Mapping[str, Enum]) -> tuple[Call, bool]:
    ending = _RESULT.search(text)
    if not text.startswith("bpf(") or not ending:
        raise RecordingError(f"{text[:60]!r} isn't a whole call of bpf(2)")
    arguments = _Reader(text[len("bpf(") : ending.start()]).values()
    cmd = _number(arguments[0] if arguments else None, enums[CMDS.option])
    fields = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], dict) else {}
    result = _result(ending[1], ending[2])
    # Older releases of strace show, as bytes, the part of the union whose fields they don't know.
    size = _int(arguments[2]) if len(arguments) > 2 else 0
    known = _fields(call.command(cmd), fields, enums, result, size)
    known["result"] = result
    made = make(pid=tid, tid=tid, cmd=call.command(cmd), **known)
    return made, _REST not in fields or made.cmd not in _FLAGS_LAST


def _result(number: str | None, name: str | None) -> int | None:
    if number is None:
        return None
    if int(number) >= 0:
        return int(number)
    found = getattr(errno, name, None) if name else None
    if not isinstance(found, int):
        raise RecordingError(f"{name!r} isn't an errno")
    return -found


def _fields(
    cmd: int, fields: Mapping[str, Any], enums: Mapping[str, Enum], result: int | None, size: int
) -> Said:
    if cmd == call.MAP_CREATE and fields:
        flags = _flags(fields.get("map_flags"))
        sizes = (_int(fields.get(key)) for key in ("key_size", "value_size", "max_entries"))
        return {
            "map_type": _number(fields.get("map_type"), enums[MAPS.option]),
            "name": _text(fields.get("map_name")),
            "btf": any(_int(fields.get(key)) for key in _MAP_TYPES),
            "token": bool(flags & _TOKEN),
            "shape": (*sizes, flags & ~_TOKEN),
        }
    if cmd == call.PROG_LOAD and fields:
        flags = _flags(fields.get("prog_flags"))
        version = fields.get("kern_version", "") != "KERNEL_VERSION(0, 0, 0)"
        count = _int(fields.get("insn_cnt"))
        # Without -v they are an address.
        instructions = fields.get("insns")
        return {
            "prog_type": _number(fields.get("prog_type"), enums[PROGS.option]),
            "attach_type": _number(fields.get("expected_attach_type", "0"), enums[ATTACHS.option]),
            "name": _text(fields.get("prog_name")),
            "btf": _int(fields.get("prog_btf_fd")) != 0,
            "token": bool(flags & _TOKEN),
            "shape": (
                count,
                int(version or _int(fields.get("prog_btf_fd")) != 0),
                flags & ~_TOKEN,
            ),
            **call.code(_instructions(instructions)),
        }
    if cmd == call.BTF_LOAD and fields:
        flags = _flags(fields.get("btf_flags")) | _extra(fields, size, call.BTF_FLAGS)
        return {"shape": (_int(fields.get("btf_size")),), "token": bool(flags & _TOKEN)}
    if cmd == call.BTF_GET_FD_BY_ID and fields:
        flags = _flags(fields.get("open_flags")) | _extra(fields, size, call.OPEN_FLAGS)
        return {"token": bool(flags & _TOKEN)}
    if cmd in call.WITH_TOKEN and not fields and result is not None and result >= 0:
        raise RecordingError("the call's arguments are missing")
    # The kernel has refused a map without these.
    return {"shape": (0, 0, 0, 0)}


def _extra(fields: Mapping[str, Any], size: int, at: int) -> int:
    """The number at the byte `at` of a union of `size` bytes, if strace shows it as bytes; or 0."""
    words = re.findall(r"\\x([0-9a-f]{2})", str(fields.get("extra_data", "")))
    data = bytes(int(word, 16) for word in words)
    begin = at - (size - len(data))
    return int.from_bytes(data[begin : begin + 4], "little") if begin >= 0 else 0


def _instructions(found: Any) -> bytes:
    if not isinstance(found, list):
        return b""
    packed: list[bytes] = []
    for one in found:
        if not isinstance(one, dict):
            return b""
        code = 0
        for word in str(one.get("code", "")).split("|"):
            code |= _CODES.get(word, _NO_CODE)
        target, source = (_register(one.get(key)) for key in ("dst_reg", "src_reg"))
        registers = target | source << 4 if call.LITTLE else target << 4 | source
        offset, immediate = _int(one.get("off")), _int(one.get("imm"))
        packed.append(
            _INSTRUCTION.pack(code & 0xFF, registers, offset & 0xFFFF, immediate & 0xFFFFFFFF)
        )
    return b"".join(packed)


def _register(value: Any) -> int:
    number = _COMMENT.sub("", str(value)).strip().removeprefix("BPF_REG_")
    return _int(number) & 0xF


def _int(value: Any) -> int:
    """The number that strace wrote, or 0 if there is none; more text may follow it."""
    if not isinstance(value, str):
        return 0
    plain = _COMMENT.sub("", value).split("<")[0].strip()
    try:
        return int(plain, 0) if plain not in ("", "NULL") else 0
    except ValueError:
        raise RecordingError(f"{value[:60]!r} isn't a number") from None


def _number(value: Any, enum: Enum) -> int:
    plain = _COMMENT.sub("", value).strip() if isinstance(value, str) else ""
    found = enum.find(plain.lower())
    return _int(plain) if found is None else found


def _flags(value: Any) -> int:
    if not isinstance(value, str):
        return 0
    found = 0
    for word in _COMMENT.sub("", value).split("|"):
        plain = word.strip()
        found |= _FLAGS.get(plain, _OTHER_FLAG) if plain.startswith("BPF_") else _int(plain)
    return found


def _text(value: Any) -> str:
    return value.strip('."') if isinstance(value, str) else ""


class _Reader:
    """Values as strace writes them: texts, or lists and mappings of values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def values(self, end: str = "", depth: int = 0) -> list[Any]:
        """Values up to `end`, separated by commas."""
        found = []
        while not self._ends(end):
            found.append(self._value(depth))
        return found

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._ends("}"):
            key = _KEY.match(self._text, self._at)
            if key:
                self._at = key.end()
            value = self._value(depth)
            if key or value == _REST:
                found[key[1] if key else _REST] = value
        return found

    def _ends(self, end: str) -> bool:
        space = _SPACE.match(self._text, self._at)
        self._at = space.end() if space else self._at
        if self._at >= len(self._text):
            if end:
                raise RecordingError(f"{end} is missing at the end of {self._text[:60]!r}")
            return True
        if end and self._text[self._at] == end:
            self._at += 1
            return True
        return False

    def _value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise RecordingError("it is nested too deeply")
        here = self._text[self._at]
        if here in "{[":
            self._at += 1
            return self._mapping(depth + 1) if here == "{" else self.values("]", depth + 1)
        found = (_STRING if here == '"' else _WORD).match(self._text, self._at)
        if not found:
            raise RecordingError(f"{self._text[self._at : self._at + 30]!r} isn't understood")
        self._at = found.end()
        # After a mapping may come what the kernel has made of it: {...} => {...}.
        return found[0].strip()
