"""Finds out who has connected to the broker, from what the kernel says and nothing else.

The peer is held by the pidfd that the kernel took when it connected, so that its pid can't be
another process's meanwhile, and by its namespaces.  The policy decides for the owner of these
namespaces (`running.owner`), whatever the peer's own uid is.
"""

import errno
import os
import select
import socket
import struct

from ..container.namespaces import Container
from ..container.nesting import id_map, is_nested, outermost_owner
from ..errors import BAD_STATE, KERNEL_CANNOT, NO_USER_NAMESPACE, HookError
from ..running.owner import user_behind
from ..users import NOBODY, groups_of, within

# Stands for all users in a namespace within one of root's; no user has this id.
_WITHIN_ROOTS = -1
# Linux: include/uapi/asm-generic/socket.h; SO_PEERGROUPS since 4.13, SO_PEERPIDFD since 6.5.
# parisc and sparc have numbers of their own.
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_OWN_NUMBERS = ("parisc", "sparc")
_CREDENTIALS = struct.Struct("=iII")
_ID = struct.Struct("=I")
# The largest size that Python's getsockopt() takes.
_ROOM = 1024


class Peer:
    """The process at the other end of a socket; to be used in a `with`.

    `pid`, `uid` and `gid` are those that the process had when it connected.  This object owns
    `container`, the process's namespaces.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Find out who it is.  Raises HookError if it isn't in a container, or has ended."""
        self.pid, self.uid, self.gid = credentials(sock)
        self._sock = sock
        self._pidfd = _pidfd(sock)
        try:
            if not self.pid:
                raise _gone()  # It is in no pid namespace below ours, and so has no pid here.
            self.container = Container(self.pid)
        except BaseException:
            os.close(self._pidfd)
            raise
        try:
            if not self.unchanged():
                raise _gone()
            if not within(self.uid, id_map(self.container, "uid")):
                raise HookError(
                    NO_USER_NAMESPACE,
                    "the process that asks the broker has no id in its own user namespace; map one "
                    "(uid_map) before asking",
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give all fds back but the socket's, which is the caller's."""
        self.container.close()
        os.close(self._pidfd)

    def unchanged(self) -> bool:
        """Whether it is still running, in the namespaces in which it was found."""
        # The pidfd is checked last: if the process hasn't ended then, its pid was its own before.
        return self.container.alive() and not has_ended(self._pidfd)

    def user(self) -> int:
        """The user for whom it asks, by the host's ids."""
        return user_behind(self.container)

    def share(self) -> int:
        """The user whose share of the broker it takes: the owner of its outermost user namespace.

        If root made that namespace for a user, a range of one id maps that user.  All processes in
        namespaces within one of root's take the same share.  Only ids are looked at, since looking
        up accounts may take time.
        """
        owner = outermost_owner(self.container)
        if owner != 0:
            return owner
        if is_nested(self.container):
            return _WITHIN_ROOTS
        alone = [first for first, count in id_map(self.container, "uid") if count == 1]
        return next((uid for uid in alone if uid not in (0, NOBODY)), 0)

    def groups(self, user: int) -> tuple[int, ...]:
        """The groups of `user`: those in the host's database, and some of the peer's own groups.

        Of the peer's own groups only those count that its user namespace doesn't map: no process in
        the namespace can give itself such a group, so the peer had it before it entered.
        """
        mapped = id_map(self.container, "gid")
        brought = [gid for gid in (self.gid, *self._supplementary()) if not within(gid, mapped)]
        return tuple(dict.fromkeys([*groups_of(user), *brought]))

    def _supplementary(self) -> list[int]:
        try:
            value = self._sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _ROOM)
        except OSError:  # ERANGE: it has more groups than fit, and then none of them counts.
            return []
        return [gid for (gid,) in _ID.iter_unpack(value)]


def credentials(sock: socket.socket) -> tuple[int, int, int]:
    """The pid, uid and gid of the process at the other end of `sock`, when it connected.

    The pid is 0 if that process is in no pid namespace below ours.  Raises OSError.
    """
    value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(value)
    return pid, uid, gid


def pidfd_of(sock: socket.socket) -> int:
    """A pidfd, for the caller to close, of the process at the other end of `sock`.

    It is the process that had connected, or had listened, even if its pid is another's by now.
    Raises OSError if the kernel can't tell, or perhaps if the process has ended.
    """
    if os.uname().machine.startswith(_OWN_NUMBERS):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended."""
    return bool(select.select([pidfd], [], [], 0)[0])


def _pidfd(sock: socket.socket) -> int:
    try:
        return pidfd_of(sock)
    except OSError as error:
        if isinstance(error, ProcessLookupError):
            raise _gone() from None
        raise HookError(
            KERNEL_CANNOT,
            f"the kernel doesn't tell who asks the broker ({error.strerror}); this needs Linux 6.5",
        ) from None


def _gone() -> HookError:
    return HookError(
        BAD_STATE, "the process that asked the broker has ended, or changed its namespaces"
    )
