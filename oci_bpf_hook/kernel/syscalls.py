"""The system calls that Python has no function for; a wrapper does nothing but the call.

No ctypes type leaves this module: the wrappers take and return ints, bytes and
tuples, in the kernel's argument order, and raise OSError with the call's name and
its object.

It is built on `_ctypes`, the C module under `ctypes`, because `ctypes` imports os,
types and struct, which take a quarter of the interpreter's whole start.

The numbers below are the same on every architecture but alpha, on which no container
engine runs.  The other calls, but for bpf(2), go through libc's functions.
"""

from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    Array,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
    get_errno,
)
from _struct import calcsize, pack, pack_into, unpack_from
from posix import strerror, uname

# The kernel's name for this machine's architecture.
MACHINE = uname().machine

_MOVE_MOUNT = 429
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_FSPICK = 433
_OPENAT2 = 437
# The number of bpf(2) differs between architectures.  kernel/arch.py says where the numbers are
# from, and a test compares both tables.  A machine that isn't here can't have a guard.
_BPF = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
}

BPF_MAP_LOOKUP_ELEM = 1
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7
MNT_DETACH = 2
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10
STATX_ATTR_MOUNT_ROOT = 0x2000

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSPICK_CLOEXEC = 0x01
_FSPICK_EMPTY_PATH = 0x08
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_STATX_MNT_ID = 0x1000
_ENOSYS = 38
_BPF_OBJ_GET = 7
_BPF_OBJ_GET_INFO_BY_FD = 15
# The memory for a bpf(2) call holds union bpf_attr, then the path or the key, then the value or
# what the kernel returns.
_AT_KEY = 64
_AT_VALUE = 256
_ROOM = 4096


TYPE_CHECKING = False
if TYPE_CHECKING:
    _IntBase = _SimpleCData[int]
    _BytesBase = _SimpleCData[bytes]
    _ByteArray = Array["_Byte"]
else:  # At run time they take no parameters.
    _IntBase = _BytesBase = _SimpleCData
    _ByteArray = Array


class _Int(_IntBase):
    _type_ = "i"


class _Long(_IntBase):
    _type_ = "l"


class _Bytes(_BytesBase):
    _type_ = "z"


class _Byte(_BytesBase):
    _type_ = "c"


class _Memory(_ByteArray):
    _type_ = _Byte
    _length_ = _ROOM


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Int


# dlopen(3) takes NULL for what is loaded already, but typeshed doesn't know that.
_libc = dlopen(None, 0)  # type: ignore[arg-type]


def _function(name: str, *argtypes: type) -> _Function:
    function = _Function(dlsym(_libc, name))
    function.argtypes = argtypes
    return function


def _syscall(*argtypes: type) -> _Function:
    function = _function("syscall", _Long, *argtypes)
    function.restype = _Long
    return function


_call_fsopen = _syscall(_Bytes, _Int)
_call_fsconfig = _syscall(_Int, _Int, _Bytes, _Bytes, _Int)
_call_fsmount = _syscall(_Int, _Int, _Int)
_call_fspick = _syscall(_Int, _Bytes, _Int)
_call_move_mount = _syscall(_Int, _Bytes, _Int, _Bytes, _Int)
_call_openat2 = _syscall(_Int, _Bytes, _Bytes, _Long)
_call_bpf = _syscall(_Int, _Memory, _Int)
_call_setns = _function("setns", _Int, _Int)
_call_prctl = _function("prctl", _Int, _Long, _Long, _Long, _Long)
_call_umount2 = _function("umount2", _Bytes, _Int)
_call_statx = _function("statx", _Int, _Bytes, _Int, _Int, _Memory)


def _check(result: int, call: str, where: bytes = b"") -> int:
    if result >= 0:
        return result
    number = get_errno()
    name = where.decode("utf-8", "backslashreplace") or None
    raise OSError(number, f"{call}: {strerror(number)}", name)


def _common(number: int) -> int:
    """`number`, unless this machine is an alpha, where the number would be another call's."""
    if MACHINE == "alpha":
        raise OSError(_ENOSYS, "this machine's system call numbers aren't known")
    return number


def fsopen(fsname: bytes) -> int:
    return _check(_call_fsopen(_common(_FSOPEN), fsname, _FSOPEN_CLOEXEC), "fsopen", fsname)


def fsconfig(fd: int, command: int, key: bytes | None, value: bytes | None) -> None:
    _check(_call_fsconfig(_common(_FSCONFIG), fd, command, key, value, 0), "fsconfig", key or b"")


def fsmount(fd: int, attributes: int) -> int:
    return _check(_call_fsmount(_common(_FSMOUNT), fd, _FSMOUNT_CLOEXEC, attributes), "fsmount")


def fspick(mount: int) -> int:
    """A context for reconfiguring the filesystem that is mounted at the directory fd `mount`."""
    flags = _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH
    return _check(_call_fspick(_common(_FSPICK), mount, b"", flags), "fspick")


def move_mount(mount: int, target: int) -> None:
    """Attach the detached `mount` onto the directory `target`, both given as O_PATH fds."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    _check(_call_move_mount(_common(_MOVE_MOUNT), mount, b"", target, b"", flags), "move_mount")


def openat2(dirfd: int, path: bytes, flags: int, resolve: int) -> int:
    how = pack("QQQ", flags, 0, resolve)
    return _check(_call_openat2(_common(_OPENAT2), dirfd, path, how, len(how)), "openat2", path)


def setns(fd: int, nstype: int) -> None:
    _check(_call_setns(fd, nstype), "setns")


def prctl(option: int, value: int) -> None:
    _check(_call_prctl(option, value, 0, 0, 0), "prctl")


def umount2(path: bytes, flags: int) -> None:
    _check(_call_umount2(path, flags), "umount2", path)


def statx_mount(fd: int) -> tuple[int, bool]:
    """The id of the mount that `fd` is on, and whether `fd` is that mount's root.

    The id is the one in /proc/PID/mountinfo.  Raises OSError (ENOSYS) if the kernel leaves out
    either, as kernels before 5.8 do.
    """
    buffer = _Memory()  # It is larger than struct statx, but a type of its own takes time.
    _check(_call_statx(fd, b"", AT_EMPTY_PATH, _STATX_MNT_ID, buffer), "statx")
    (mask,) = unpack_from("I", buffer, 0)
    (attributes,) = unpack_from("Q", buffer, 8)
    (known,) = unpack_from("Q", buffer, 56)
    (mount,) = unpack_from("Q", buffer, 144)
    if not mask & _STATX_MNT_ID or not known & STATX_ATTR_MOUNT_ROOT:
        raise OSError(_ENOSYS, "statx: the kernel doesn't tell a file's mount")
    return mount, bool(attributes & STATX_ATTR_MOUNT_ROOT)


def _bpf(command: int, memory: _Memory) -> int:
    number = _BPF.get(MACHINE) if calcsize("P") == 8 else None
    if number is None:
        raise OSError(_ENOSYS, f"the number of bpf(2) isn't known here for {MACHINE}")
    return _check(_call_bpf(number, command, memory, _AT_KEY), "bpf")


def bpf_obj_get(path: bytes) -> int:
    """An fd of the program, map or link that is pinned at `path`, which has at most 191 bytes."""
    data = bytearray(_ROOM)
    memory = _Memory.from_buffer(data)
    pack_into("Q", data, 0, addressof(memory) + _AT_KEY)
    data[_AT_KEY : _AT_KEY + len(path)] = path
    return _bpf(_BPF_OBJ_GET, memory)


def bpf_obj_info(fd: int) -> bytes:
    """What the kernel says about a program, map or link, such as a struct bpf_prog_info."""
    data = bytearray(_ROOM)
    memory = _Memory.from_buffer(data)
    pack_into("IIQ", data, 0, fd, _ROOM - _AT_VALUE, addressof(memory) + _AT_VALUE)
    _bpf(_BPF_OBJ_GET_INFO_BY_FD, memory)
    (size,) = unpack_from("I", data, 4)
    return bytes(data[_AT_VALUE : _AT_VALUE + size])


def bpf_map(command: int, fd: int, key: bytes, value: bytes | int) -> bytes:
    """One of the BPF_MAP_*_ELEM commands on the map `fd`; `key` has at most 192 bytes.

    `value` is the value to write or, for reading, the size of the map's values.  Returns the value.
    """
    data = bytearray(_ROOM)
    memory = _Memory.from_buffer(data)
    base = addressof(memory)
    # A queue has no keys, and the kernel takes only NULL for its key.
    pack_into("IxxxxQQ", data, 0, fd, base + _AT_KEY if key else 0, base + _AT_VALUE)
    data[_AT_KEY : _AT_KEY + len(key)] = key
    size = value if isinstance(value, int) else len(value)
    if isinstance(value, bytes):
        data[_AT_VALUE : _AT_VALUE + size] = value
    _bpf(command, memory)
    return bytes(data[_AT_VALUE : _AT_VALUE + size])
