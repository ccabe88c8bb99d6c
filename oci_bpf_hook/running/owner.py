"""Whose a container is: the user for whom the outermost user namespace around it was made.

That is who made it below the initial namespace, with whose rights all that is inside was made.  The
uid of a process in there proves nothing: in a rootful container it is a subordinate id, which may
lie in some user's range.

A namespace that root made isn't always made for root.  A set-user-id sandbox (firejail, or
bubblewrap set so) makes one for its caller while its effective id is 0, and so does systemd for a
service with PrivateUsers= and User=.  In each of them the ids of its user are mapped.  So a
namespace is root's only if root made it and no account has an id in it.  What could be either is
taken for the lesser of the two, and so is a rootful container whose ids lie in a user's subordinate
range.
"""

import pwd
from collections.abc import Sequence

from ..container.namespaces import Process
from ..errors import HookError
from ..users import NOBODY, SUBUID, given_to, user_of, within
from .process import pids


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
    found |= {one.pw_uid for one in pwd.getpwall() if within(one.pw_uid, mapped)}
    return found | given_to(mapped, subuid)
