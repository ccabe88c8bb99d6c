"""The system calls that finding out takes and the hook doesn't: bpf(2), ptrace(2), capset(2).

As in `syscalls`, a wrapper is the call and no more, and no ctypes type leaves the module.  It
is off the hot path, and so on `ctypes` itself.
"""

import ctypes
import os
import signal
from errno import ENOENT, ENOSYS, ESRCH, ETIMEDOUT
from struct import Struct, calcsize
from types import FrameType

from .recording.arch import Arch, native
from .seccomp import INSTRUCTION

CAP_NET_ADMIN = 12
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
CAP_BPF = 39

# linux/bpf.h: the commands and the flag that says that there is a token.
BPF_MAP_CREATE = 0
BPF_PROG_LOAD = 5
_BPF_PROG_GET_FD_BY_ID = 13
BPF_BTF_LOAD = 18
BPF_TOKEN_CREATE = 36
BPF_MAP_TYPE_ARRAY = 2
_F_TOKEN_FD = 1 << 16
# union bpf_attr, as the kernel's BTF has it.  TOKEN_CREATE: flags, bpffs_fd.
_TOKEN = Struct("=II")
# PROG_GET_FD_BY_ID: the id, and where the next one and flags for others are.
_ID = Struct("=I8x")
# MAP_CREATE: type, sizes of key and value, entries, flags; map_token_fd at 76.
_MAP = Struct("=5I56xi")
# PROG_LOAD: type, count, instructions, license; prog_flags at 44, expected_attach_type at 68,
# prog_token_fd at 144.
_PROGRAM = Struct("=IIQQ20xI20xI72xi4x")
# r0 = 0; exit
RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")

_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_PTRACE_DETACH = 17
_PTRACE_SECCOMP_GET_FILTER = 0x420C
_WALL = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_AT_STATX_DONT_SYNC = 0x4000
_STATX_TYPE = 1
# struct statx: the mode at 28; dev_major and dev_minor at 136.
_STATX = Struct("=28xH106xII112x")
_FILTER_MAX = 4096
_STOP_DEADLINE = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = [ctypes.c_int]
_libc.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_libc.mount.argtypes = [*[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p]
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_libc.statx.argtypes = [
    *(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
]
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
_libc.syscall.restype = ctypes.c_long


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def arch() -> Arch:
    """This process's numbers of calls.  Raises OSError (ENOSYS) where they aren't known."""
    name = os.uname().machine
    known = native(name, 8 * calcsize("P"))
    if known is None:
        raise OSError(ENOSYS, f"bpf(2) has no number known here for {name}")
    return known


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return _check(_libc.syscall(arch().bpf, command, buffer, len(attr)), "bpf")


def token_create(bpffs: int) -> int:
    """BPF_TOKEN_CREATE from an fd on the root of a bpffs; -1 gets EBADF from the kernel itself."""
    return _bpf(BPF_TOKEN_CREATE, _TOKEN.pack(0, bpffs & 0xFFFFFFFF))


def map_create(map_type: int, token: int | None) -> int:
    """BPF_MAP_CREATE of one entry, 4 bytes for 4, through `token` if there is one."""
    flags = 0 if token is None else _F_TOKEN_FD
    return _bpf(BPF_MAP_CREATE, _MAP.pack(map_type, 4, 4, 1, flags, token or 0))


def prog_load(prog_type: int, attach_type: int, token: int, program: bytes = RETURN_0) -> int:
    """BPF_PROG_LOAD of a `program` (default: one that returns 0), through `token`."""
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
    """Whether there is a program with that id (BPF_PROG_GET_FD_BY_ID)."""
    try:
        os.close(_bpf(_BPF_PROG_GET_FD_BY_ID, _ID.pack(number)))
    except FileNotFoundError:
        return False
    return True


def stat_known(path: str) -> tuple[int, str]:
    """The type of the file at `path`, as in st_mode, and its device, as in mountinfo.

    They are what the kernel knows already: a filesystem that never answers isn't asked.
    """
    buffer = ctypes.create_string_buffer(_STATX.size)
    name = os.fsencode(path)
    _check(_libc.statx(_AT_FDCWD, name, _AT_STATX_DONT_SYNC, _STATX_TYPE, buffer), "statx")
    mode, major, minor = _STATX.unpack(buffer.raw)
    return mode, f"{major}:{minor}"


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount_tmpfs(target: bytes) -> None:
    _check(_libc.mount(b"tmpfs", target, b"tmpfs", 0, b"mode=0755"), "mount")


def mount_bpffs(target: bytes) -> None:
    _check(_libc.mount(b"bpf", target, b"bpf", 0, b"mode=0700"), "mount")


def exchange(one: bytes, other: bytes) -> None:
    """Have each of two files or directories the other's name, in one step."""
    there = (ctypes.c_int(_AT_FDCWD), one, ctypes.c_int(_AT_FDCWD), other)
    _check(_libc.renameat2(*there, ctypes.c_uint(_RENAME_EXCHANGE)), "renameat2")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Give this thread these capabilities, each a mask with a bit for each of them."""
    header = Struct("=Ii").pack(_CAPABILITY_VERSION_3, 0)
    sets = (effective, permitted, inheritable)
    halves = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in sets]
    _check(_libc.capset(header, Struct("=6I").pack(*halves)), "capset")


def seccomp_filters(pid: int) -> list[bytes]:
    """The seccomp filters of the process `pid`, each an array of sock_filter.

    The process stands still for as long as it takes to copy them.  Takes CAP_SYS_ADMIN in the
    initial user namespace and a kernel with CONFIG_CHECKPOINT_RESTORE; raises OSError.
    """
    _check(_libc.ptrace(_PTRACE_SEIZE, pid, None, None), "ptrace(SEIZE)")
    passed_on = 0
    try:
        _check(_libc.ptrace(_PTRACE_INTERRUPT, pid, None, None), "ptrace(INTERRUPT)")
        passed_on = _wait_for_stop(pid)
        found: list[bytes] = []
        # The newest first, until there is no such one.
        while (program := _filter(pid, len(found))) is not None:
            found.append(program)
        return found
    finally:
        # One that hasn't stopped stays ours until we end, and then is let go too.
        _libc.ptrace(_PTRACE_DETACH, pid, None, passed_on)


def _wait_for_stop(pid: int) -> int:
    """Wait until the process stands still; the signal it is to get when it goes on, 0 for none.

    One in a frozen cgroup, or asleep in the kernel for good, never does.
    """
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(_STOP_DEADLINE)
    try:
        _, status = os.waitpid(pid, _WALL)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if not os.WIFSTOPPED(status):
        raise OSError(ESRCH, "it has ended")
    # A signal that came just then would be lost: it stops for that instead.
    return 0 if status >> 16 else os.WSTOPSIG(status)


def _too_late(number: int, frame: FrameType | None) -> None:
    raise OSError(ETIMEDOUT, f"it didn't stop within {_STOP_DEADLINE} seconds; is it paused?")


def _filter(pid: int, number: int) -> bytes | None:
    buffer = ctypes.create_string_buffer(_FILTER_MAX * INSTRUCTION.size)
    count = _libc.ptrace(_PTRACE_SECCOMP_GET_FILTER, pid, number, buffer)
    if count < 0 and ctypes.get_errno() == ENOENT:
        return None
    return buffer.raw[: _check(count, "ptrace(SECCOMP_GET_FILTER)") * INSTRUCTION.size]
