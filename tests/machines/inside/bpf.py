"""bpf(2) as a container's process calls it: a token, and a raw program through it."""

import ctypes
import os
from collections.abc import Sequence
from struct import Struct, pack
from typing import Final, NamedTuple

from oci_bpf_hook.kernel import bpf

# union bpf_attr: prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version,
# prog_flags, prog_name, prog_ifindex, expected_attach_type; prog_btf_fd at 72; attach_btf_id at
# 108, attach_btf_obj_fd; fd_array at 120; prog_token_fd at 144.
_PROGRAM: Final = Struct("=IIQQIIQII16sIIi32xIi4xQ16xi4x")
_F_TOKEN_FD: Final = 1 << 16
# r0 = 0; exit
RETURN_0: Final = bytes.fromhex("b7000000000000009500000000000000")
_LOG: Final = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Loaded(NamedTuple):
    """What came of a program: its fd, or -1 with the errno and what the verifier wrote."""

    fd: int
    errno: int
    log: str


def token(path: str = "/sys/fs/bpf") -> int:
    """A token of the bpffs at `path`.  Raises OSError."""
    bpffs = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return bpf.token_create(bpffs)
    finally:
        os.close(bpffs)


def prog_load(
    instructions: bytes,
    prog_type: int,
    *,
    attach_type: int = 0,
    token: int | None = None,
    attach_btf: int = 0,
    name: str = "",
    flags: int = 0,
    fd_array: Sequence[int] = (),
    log: bool = True,
) -> Loaded:
    """BPF_PROG_LOAD of these instructions, with a verifier's log only where it is refused."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_ = ctypes.create_string_buffer(b"GPL")
    said = ctypes.create_string_buffer(_LOG)
    array = pack(f"={len(fd_array)}i", *fd_array)
    fds = ctypes.create_string_buffer(array, len(array) or 1)
    attr = _PROGRAM.pack(
        prog_type,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(license_),
        *((1, _LOG, ctypes.addressof(said), 0) if log else (0, 0, 0, 0)),
        flags | (0 if token is None else _F_TOKEN_FD),
        name.encode(),
        0,
        attach_type,
        0,
        attach_btf,
        0,
        ctypes.addressof(fds) if fd_array else 0,
        0 if token is None else token,
    )
    fd = _libc.syscall(bpf.arch().bpf, bpf.BPF_PROG_LOAD, attr, len(attr))
    if fd >= 0:
        return Loaded(fd, 0, "")
    return Loaded(-1, ctypes.get_errno(), said.value.decode(errors="replace"))
