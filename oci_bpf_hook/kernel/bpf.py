"""bpf(2) calls that try out what works; the hook itself makes none of them.

As in `syscalls`, a wrapper does nothing but the call, and no ctypes type leaves the module.
"""

import ctypes
import os
from errno import ENOSYS
from struct import Struct, calcsize

from .arch import Arch, native
from .libc import check, load

# The commands, a map type, and the flag that says that a token is given (linux/bpf.h).
BPF_MAP_CREATE = 0
BPF_PROG_LOAD = 5
_BPF_PROG_GET_FD_BY_ID = 13
BPF_BTF_LOAD = 18
BPF_TOKEN_CREATE = 36
BPF_MAP_TYPE_ARRAY = 2
_F_TOKEN_FD = 1 << 16
# union bpf_attr, as the kernel's BTF has it.  TOKEN_CREATE: flags, bpffs_fd.
_TOKEN = Struct("=II")
# PROG_GET_FD_BY_ID: the id; next_id and open_flags after it are for other commands.
_ID = Struct("=I8x")
# MAP_CREATE: type, sizes of key and value, entries, flags; map_token_fd at 76.
_MAP = Struct("=5I56xi")
# PROG_LOAD: type, count, instructions, license; prog_flags at 44, expected_attach_type at 68,
# prog_token_fd at 144.
_PROGRAM = Struct("=IIQQ20xI20xI72xi4x")
# r0 = 0; exit
RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")

_libc = load()
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
_libc.syscall.restype = ctypes.c_long


def arch() -> Arch:
    """The architecture of this process.  Raises OSError (ENOSYS) if it isn't in the table."""
    name = os.uname().machine
    known = native(name, 8 * calcsize("P"))
    if known is None:
        raise OSError(ENOSYS, f"the number of bpf(2) isn't known here for {name}")
    return known


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return check(_libc.syscall(arch().bpf, command, buffer, len(attr)), "bpf")


def token_create(bpffs: int) -> int:
    """BPF_TOKEN_CREATE from an fd of the root of a bpffs.  For -1 the kernel itself gives EBADF."""
    return _bpf(BPF_TOKEN_CREATE, _TOKEN.pack(0, bpffs & 0xFFFFFFFF))


def map_create(map_type: int, token: int | None) -> int:
    """BPF_MAP_CREATE of one entry with a key and a value of 4 bytes, with `token` if given."""
    flags = 0 if token is None else _F_TOKEN_FD
    return _bpf(BPF_MAP_CREATE, _MAP.pack(map_type, 4, 4, 1, flags, token or 0))


def prog_load(prog_type: int, attach_type: int, token: int, program: bytes = RETURN_0) -> int:
    """BPF_PROG_LOAD of `program`, by default one that returns 0, with `token`."""
    code = ctypes.create_string_buffer(program, len(program))
    license_ = ctypes.create_string_buffer(b"GPL")
    attr = _PROGRAM.pack(
        prog_type,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license_),
        _F_TOKEN_FD,
        attach_type,
        token,
    )
    return _bpf(BPF_PROG_LOAD, attr)


def prog_exists(number: int) -> bool:
    """Whether there is a program with the id `number` (BPF_PROG_GET_FD_BY_ID)."""
    try:
        os.close(_bpf(_BPF_PROG_GET_FD_BY_ID, _ID.pack(number)))
    except FileNotFoundError:
        return False
    return True
