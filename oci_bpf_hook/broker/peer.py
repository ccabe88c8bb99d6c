"""Who has connected to the broker, by the kernel's word alone.

The process is held by the pidfd that the kernel took when it connected, so that its pid can't
become somebody else's, and by its namespaces.  Whose they are decides (`owner`), and not the
peer's own uid.
"""

import os
import select
import socket
import struct

from ..container.namespaces import Container
from ..errors import BAD_STATE, KERNEL_CANNOT, NO_USER_NAMESPACE, HookError
from ..running.owner import user_behind
from ..users import NOBODY, groups_of, within

# No user's id.
_WITHIN_ROOTS = -1
# asm-generic/socket.h; parisc and sparc have numbers of their own.
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_OWN_NUMBERS = ("parisc", "sparc")
_CREDENTIALS = struct.Struct("=iII")
_ID = struct.Struct("=I")
# Python gives no more room to an option's value.
_ROOM = 1024


class Peer:
    """The process at the other end of a socket; `pid`, `uid` and `gid` are those it had then.

    To be used in a `with`; owns `container`, its namespaces.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Find out who it is.  Raises HookError if it is in no container, or gone."""
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, self.gid = _CREDENTIALS.unpack(credentials)
        self._sock = sock
        self._pidfd = _pidfd(sock)
        try:
            if not self.pid:
                raise _gone()  # It can't be seen from here: in no pid namespace below ours.
            self.container = Container(self.pid)
        except BaseException:
            os.close(self._pidfd)
            raise
        try:
            if not self.unchanged():
                raise _gone()
            if not within(self.uid, self.container.id_map("uid")):
                raise HookError(
                    NO_USER_NAMESPACE,
                    "whoever asks the broker has no id in its own user namespace: map one "
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
        """Whether it lives, in the namespaces in which it was found."""
        # In this order: while it hasn't ended its pid is nobody else's.
        return self.container.alive() and not select.select([self._pidfd], [], [], 0)[0]

    def user(self) -> int:
        """The user for whom it asks, by the host's ids."""
        return user_behind(self.container)

    def share(self) -> int:
        """The user whose share of the broker it takes, by ids alone: accounts take time to ask for.

        That is who made the outermost user namespace.  Root's for somebody else maps that one's id
        by itself; and whoever is in one within root's has a share with all others who are.
        """
        owner = self.container.outermost_owner()
        if owner != 0:
            return owner
        if self.container.is_nested():
            return _WITHIN_ROOTS
        alone = [first for first, count in self.container.id_map("uid") if count == 1]
        return next((uid for uid in alone if uid not in (0, NOBODY)), 0)

    def groups(self, user: int) -> tuple[int, ...]:
        """The groups of that `user`: what the host's database says, and what the peer brings along.

        Of its own groups only those count that its namespace doesn't map: no process in there
        can give itself one, so it had it before.
        """
        mapped = self.container.id_map("gid")
        brought = [gid for gid in (self.gid, *self._supplementary()) if not within(gid, mapped)]
        return tuple(dict.fromkeys([*groups_of(user), *brought]))

    def _supplementary(self) -> list[int]:
        try:
            value = self._sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _ROOM)
        except OSError:  # ERANGE: more than anybody's rule is about.
            return []
        return [gid for (gid,) in _ID.iter_unpack(value)]


def _pidfd(sock: socket.socket) -> int:
    if os.uname().machine.startswith(_OWN_NUMBERS):
        raise HookError(KERNEL_CANNOT, "on this machine the broker can't tell who asks")
    try:
        return sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if isinstance(error, ProcessLookupError):
            raise _gone() from None
        raise HookError(
            KERNEL_CANNOT,
            f"the kernel doesn't tell who asks the broker ({error.strerror}); it takes Linux 6.5",
        ) from None


def _gone() -> HookError:
    return HookError(BAD_STATE, "whoever asked the broker has ended, or changed its namespaces")
