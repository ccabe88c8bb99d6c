"""seccomp's notifications: a call that waits for us, what it is about, and our answer to go on.

seccomp_unotify(2) names two dangers.  Between the notification and our look at the caller's memory
the caller may have died, and its pid may be another process's; so the memory is opened first, and
then the notification is checked for being valid still.  And another thread of the caller may change
that memory after we have read it: we know what was asked for at that moment, not what the kernel
will read.  That is enough to learn from, and would never be enough to decide upon.
"""

import fcntl
import os
from errno import EINTR, ENOENT
from struct import Struct

from ...values import Value
from ..call import LONGEST, Call, command, decode, instructions_at

# struct seccomp_notif: id, pid, flags; then struct seccomp_data: nr, arch, ip, six arguments.
_NOTIF = Struct("=QII iIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags.
_RESPONSE = Struct("=QqiI")
_ID = Struct("=Q")
_CONTINUE = 1
_TYPE = ord("!")


def _request(number: int, size: int, *, reads: bool) -> int:
    """An ioctl's number: _IOWR if the kernel also writes to the argument, otherwise _IOW."""
    write, read, direction, width = 1, 2, 30, 14
    if os.uname().machine.startswith("ppc"):
        write, read, direction, width = 4, 2, 29, 13
    assert size < 1 << width
    way = write | (read if reads else 0)
    return way << direction | size << 16 | _TYPE << 8 | number


_RECV = _request(0, _NOTIF.size, reads=True)
_SEND = _request(1, _RESPONSE.size, reads=True)
_ID_VALID = _request(2, _ID.size, reads=False)


class Notification(Value):
    """A thread that waits in bpf(2): `attr` is the union's address, `size` the size that it gave.

    `tid` is its id as we see it; `arch` is its architecture, and `after` the address that the call
    returns to.
    """

    __slots__ = ("after", "arch", "attr", "cmd", "identity", "size", "tid")
    identity: int
    tid: int
    arch: int
    after: int
    cmd: int
    attr: int
    size: int


def receive(listener: int) -> Notification | None:
    """The next notification; None if its call was interrupted or its thread died meanwhile."""
    buffer = bytearray(_NOTIF.size)
    try:
        fcntl.ioctl(listener, _RECV, buffer, True)
    except OSError as error:
        if error.errno in (ENOENT, EINTR):
            return None
        raise
    identity, tid, _, _, arch, after, cmd, attr, size, *_ = _NOTIF.unpack(buffer)
    return Notification(
        identity=identity,
        tid=tid,
        arch=arch,
        after=after,
        cmd=command(cmd),
        attr=attr,
        size=size & 0xFFFFFFFF,
    )


def let_go(listener: int, one: Notification) -> bool:
    """Have the kernel make the call, as if nobody had looked; returns whether it will.

    It won't if the thread was killed, or if a signal interrupted the call, which then comes again.
    If the filter isn't ours, any signal can do that.
    """
    try:
        fcntl.ioctl(listener, _SEND, bytearray(_RESPONSE.pack(one.identity, 0, 0, _CONTINUE)), True)
    except OSError as error:
        if error.errno != ENOENT:
            raise
        return False
    return True


def valid(listener: int, one: Notification) -> bool:
    """Whether its thread still waits, so that `tid` still names it."""
    try:
        fcntl.ioctl(listener, _ID_VALID, _ID.pack(one.identity))
    except OSError as error:
        if error.errno == ENOENT:
            return False
        raise
    return True


def read(listener: int, one: Notification) -> Call | None:
    """The call that waits, read from its thread's memory; None if the thread has gone.

    The kernel will refuse addresses that aren't mapped; only the command of such a call is known.
    Raises PermissionError if not even root may look (Yama's ptrace_scope 3).
    """
    try:
        memory = os.open(f"/proc/{one.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        pid = _process(one.tid)
        if pid is None or not valid(listener, one):
            return None
        attr = _read(memory, one.attr, min(one.size, LONGEST))
        address, size = instructions_at(one.cmd, attr)
        instructions = _read(memory, address, size) if size else b""
        if not valid(listener, one):
            return None
    finally:
        os.close(memory)
    return decode(one.cmd, attr, pid=pid, tid=one.tid, instructions=instructions)


def _read(memory: int, address: int, size: int) -> bytes:
    # The upper half of the addresses is the kernel's, and larger than any file offset.
    if not 0 < address < 1 << 63:
        return b""
    try:
        return os.pread(memory, size, address)
    except OSError:  # EIO: nothing is mapped there.
        return b""


def _process(tid: int) -> int | None:
    """The process that the thread `tid` belongs to; None if it has died."""
    try:
        # The thread's name, which its program chooses, comes first; in it only "\n" is escaped.
        with open(f"/proc/{tid}/status", "rb") as status:
            for line in status:
                key, _, value = line.partition(b":")
                if key == b"Tgid":
                    return int(value)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None
