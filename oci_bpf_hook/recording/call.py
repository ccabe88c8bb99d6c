"""One call of bpf(2): what its union bpf_attr says, as far as delegation is concerned.

The union is the caller's memory and may hold anything, so nothing here trusts it.  If a union is
too short for a field, the field is 0, as in the kernel.
"""

from _struct import Struct
from typing import TypedDict, Unpack

from ..values import Value

# Linux: include/uapi/linux/bpf.h, enum bpf_cmd, which is ABI.
MAP_CREATE, PROG_LOAD, BTF_LOAD, BTF_GET_FD_BY_ID, TOKEN_CREATE = 0, 5, 18, 19, 36
_PROG_ATTACH, _LINK_CREATE = 8, 28
# The commands that take a token; delegation is about these.
WITH_TOKEN = (MAP_CREATE, PROG_LOAD, BTF_LOAD, BTF_GET_FD_BY_ID)
_BPF_F_TOKEN_FD = 1 << 16
# Where these commands have their flags in the union.
BTF_FLAGS, OPEN_FLAGS = 32, 8
# A flag in the command's argument since Linux 7.0: a second union follows.
_COMMON_ATTRS = 1 << 16
_U16 = Struct("=H")
_U32 = Struct("=I")
_U64 = Struct("=Q")
# No union bpf_attr so far is larger.
LONGEST = 256
# The most instructions of a program that are looked at.
_LOOKED_AT = 1 << 16
_INSTRUCTION = Struct("=BBhi")
_CALL = 0x85
# On little-endian machines an instruction's first register is in the lower half of its byte.
LITTLE = _U16.pack(1)[0] == 1
_NAME = 16


class Call(Value):
    """One call; fields that its command doesn't have are None.

    `token` says whether it came with a token, `btf` whether it came with BTF of its own; `result`
    is what it returned, a negative errno for a failure, and None if nobody saw it.  `shape` tells
    libbpf's probes apart: for a map its sizes of key and value, entries and flags; for a program
    its number of instructions, whether it came with BTF or a kernel's version, and flags; for BTF
    its size.  `instructions` are a program's, `helpers` the numbers of the helpers that it calls.
    """

    __slots__ = (
        *("attach_type", "btf", "cmd", "helpers", "instructions", "map_type", "name", "pid"),
        *("prog_type", "result", "shape", "tid", "token"),
    )
    pid: int
    tid: int
    cmd: int
    map_type: int | None
    prog_type: int | None
    attach_type: int | None
    name: str
    token: bool
    btf: bool
    shape: tuple[int, ...]
    instructions: bytes
    helpers: tuple[int, ...]
    result: int | None

    def ended(self, result: int | None) -> "Call":
        """The same call, with its `result`."""
        return self._but(result=result)

    def with_token(self, token: bool) -> "Call":
        """The same call, which came with a token or didn't."""
        return self._but(token=token)

    def _but(self, **changes: object) -> "Call":
        return Call(**{name: getattr(self, name) for name in self.__slots__} | changes)


class Said(TypedDict, total=False):
    """What is known of a call, apart from who made it; a missing key is None or empty in a Call."""

    map_type: int | None
    prog_type: int | None
    attach_type: int | None
    name: str
    token: bool
    btf: bool
    shape: tuple[int, ...]
    instructions: bytes
    helpers: tuple[int, ...]
    result: int | None


def command(argument: int) -> int:
    """The command in bpf(2)'s first argument."""
    plain = argument & 0xFFFFFFFF
    return plain & ~_COMMON_ATTRS if plain < _COMMON_ATTRS << 1 else plain


def instructions_at(cmd: int, attr: bytes) -> tuple[int, int]:
    """Address and size in bytes of a program's instructions in the caller's memory; or 0, 0."""
    if cmd != PROG_LOAD:
        return 0, 0
    return _u64(attr, 8), min(_u32(attr, 4), _LOOKED_AT) * _INSTRUCTION.size


def decode(cmd: int, attr: bytes, *, pid: int, tid: int, instructions: bytes = b"") -> Call:
    """The call of `cmd` with the union `attr`, made by the thread `tid` of the process `pid`.

    `instructions` are the bytes at `instructions_at`, as far as they can be read.  If `attr` is
    empty, because it couldn't be read either, nothing is known of the call.
    """
    fields: Said = {}
    flags = 0
    if not attr:
        fields["shape"] = (0, 0, 0, 0)
    elif cmd == MAP_CREATE:
        flags = _u32(attr, 16)
        fields["map_type"] = _u32(attr, 0)
        fields["name"] = _text(attr, 28)
        # The types of its key and value, and for struct_ops the kernel's; without any of these the
        # kernel ignores the fd of BTF.
        fields["btf"] = any(_u32(attr, at) for at in (52, 56, 60))
        fields["shape"] = (_u32(attr, 4), _u32(attr, 8), _u32(attr, 12), flags & ~_BPF_F_TOKEN_FD)
    elif cmd == PROG_LOAD:
        flags = _u32(attr, 44)
        fields["prog_type"] = _u32(attr, 0)
        fields["attach_type"] = _u32(attr, 68)
        fields["name"] = _text(attr, 48)
        fields["btf"] = bool(_u32(attr, 72))
        # libbpf passes a kernel's version, or BTF, with programs but not with its probes.
        dressed = int(bool(_u32(attr, 40) or _u32(attr, 72)))
        fields["shape"] = (_u32(attr, 4), dressed, flags & ~_BPF_F_TOKEN_FD)
    elif cmd == BTF_LOAD:
        flags = _u32(attr, BTF_FLAGS)
        fields["shape"] = (_u32(attr, 16),)
    else:
        flags = _u32(attr, OPEN_FLAGS) if cmd == BTF_GET_FD_BY_ID else 0
        if cmd in (_PROG_ATTACH, _LINK_CREATE):
            fields["attach_type"] = _u32(attr, 8)
    fields["token"] = bool(flags & _BPF_F_TOKEN_FD)
    return make(pid=pid, tid=tid, cmd=cmd, **fields | code(instructions))


def code(instructions: bytes) -> Said:
    """The fields `instructions` and `helpers` of a program with these instructions."""
    whole = len(instructions) // _INSTRUCTION.size * _INSTRUCTION.size
    # A call of a helper has no source register; a call of a function has.
    helpers = {
        immediate
        for opcode, registers, _, immediate in _INSTRUCTION.iter_unpack(instructions[:whole])
        if opcode == _CALL and (registers >> 4 if LITTLE else registers & 0xF) == 0
    }
    return {"instructions": instructions[:whole], "helpers": tuple(sorted(helpers))}


def make(*, pid: int, tid: int, cmd: int, **said: Unpack[Said]) -> Call:
    """A Call with these fields; all others are None or empty."""
    return Call(
        pid=pid,
        tid=tid,
        cmd=cmd,
        map_type=said.get("map_type"),
        prog_type=said.get("prog_type"),
        attach_type=said.get("attach_type"),
        name=said.get("name", ""),
        token=said.get("token", False),
        btf=said.get("btf", False),
        shape=said.get("shape", ()),
        instructions=said.get("instructions", b""),
        helpers=said.get("helpers", ()),
        result=said.get("result"),
    )


def _u32(attr: bytes, at: int) -> int:
    found: int = _U32.unpack_from(attr.ljust(at + _U32.size, b"\0"), at)[0]
    return found


def _u64(attr: bytes, at: int) -> int:
    found: int = _U64.unpack_from(attr.ljust(at + _U64.size, b"\0"), at)[0]
    return found


def _text(attr: bytes, at: int) -> str:
    return attr[at : at + _NAME].partition(b"\0")[0].decode("ascii", "backslashreplace")
