"""Who has connected to the broker, by the kernel's word alone, and whose any container is.

The process is held by the pidfd that the kernel took when it connected, so that its pid can't
become somebody else's, and by its namespaces.  Whose they are decides (`user_behind`): the user
who made the outermost user namespace below the initial one, with whose rights all that is inside
was made.  The peer's own uid proves nothing: in a rootful container it is a subordinate id that may
lie in some user's range.

Root's namespace isn't always root's doing.  A set-user-id sandbox (firejail, or bubblewrap set so)
makes one for whoever runs it while its effective id is 0, and so does systemd for a service with
PrivateUsers= and User=.  What they have in common is that the ids of whom it is for are mapped
there.  So root is only who made a namespace in which no account has an id; what could be either
is the lesser of the two, and so is a rootful container whose ids lie in a user's subordinate range.
"""

import os
import pwd
import select
import socket
import struct
from collections.abc import Sequence

from .container import Container, Process
from .errors import BAD_STATE, KERNEL_CANNOT, NO_USER_NAMESPACE, HookError
from .processes import pids
from .users import NOBODY, SUBUID, given_to, groups_of, user_of

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
            if not _within(self.uid, self.container.id_map("uid")):
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
        brought = [gid for gid in (self.gid, *self._supplementary()) if not _within(gid, mapped)]
        return tuple(dict.fromkeys([*groups_of(user), *brought]))

    def _supplementary(self) -> list[int]:
        try:
            value = self._sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _ROOM)
        except OSError:  # ERANGE: more than anybody's rule is about.
            return []
        return [gid for (gid,) in _ID.iter_unpack(value)]


def user_behind(process: Process, subuid: str = SUBUID) -> int:
    """The user for whom the outermost user namespace around `process` was made, by the host's ids.

    That is its owner, a subordinate id being the user's that it was given to, if that isn't root.
    Of root's it is root only if no id of an account or of its subordinate range is mapped there,
    and else that account; NOBODY where that may be several, or can't be read any more.  To be asked
    in the initial user namespace, by who may look at the process.  Raises OSError, HookError.
    """
    number, owner = process.outermost()
    if owner != 0:
        return user_of(owner, subuid)
    mapped = _map_of(process, number)
    if mapped is None:
        return NOBODY
    accounts = _accounts(mapped, subuid) - {0}
    if len(accounts) > 1:
        # Set-user-id bubblewrap maps this one for the namespace's root, beside the user's own.
        accounts.discard(NOBODY)
    if not accounts:
        return 0
    return accounts.pop() if len(accounts) == 1 else NOBODY


def _map_of(process: Process, namespace: int) -> list[tuple[int, int]] | None:
    """The host's ids that are mapped into the `namespace` around `process`: first and count.

    Only a process that is in a namespace tells its map, which is written once.  None if none is.
    """
    if process.user_inode() == namespace:
        mapped = process.id_map("uid")
        return mapped if process.alive() else None
    for pid in pids():
        try:
            with Process(pid) as other:
                if other.user_inode() == namespace:
                    mapped = other.id_map("uid")
                    if other.alive():
                        return mapped
        except (HookError, OSError):
            continue
    return None


def _accounts(mapped: Sequence[tuple[int, int]], subuid: str) -> set[int]:
    """Whose the `mapped` ids are: accounts' own, and those that accounts were given.

    A range of one is somebody's, too, if the host's database doesn't know who: processes have ids
    that it hasn't, and no engine maps a container's ids one by one.
    """
    found = {user_of(first, subuid) for first, count in mapped if count == 1}
    found |= {one.pw_uid for one in pwd.getpwall() if _within(one.pw_uid, mapped)}
    return found | given_to(mapped, subuid)


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


def _within(number: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(first <= number < first + count for first, count in ranges)


def _gone() -> HookError:
    return HookError(BAD_STATE, "whoever asked the broker has ended, or changed its namespaces")
