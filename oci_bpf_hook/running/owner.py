"""Finds a container's user: the one for whom the outermost user namespace around it was made.

Usually that is the user who made that namespace, since everything inside was made with this user's
rights.  The uid of a process inside proves nothing: in a rootful container it is a subordinate uid,
which may be in some user's range.

A namespace that root made isn't always made for root.  A set-user-id sandbox (firejail, or a
set-user-id bubblewrap) makes one for its caller while its effective uid is 0, and systemd makes one
for a service with PrivateUsers= and User=.  In such a namespace the user's uid is mapped.  So a
namespace is root's only if root made it and no account's id is mapped in it.  Where both are
possible the less privileged user is assumed, for example for a rootful container whose ids are in
a user's subordinate range.
"""

import pwd
from collections.abc import Sequence

from ..container.namespaces import Process
from ..container.nesting import id_map, outermost
from ..errors import HookError
from ..users import NOBODY, SUBUID, given_to, user_of, within
from .process import pids


def user_behind(process: Process, subuid: str = SUBUID) -> int:
    """The host's uid of the user for whom the outermost user namespace around `process` was made.

    If the namespace's owner isn't root, it is the owner, or the user to whom the owner's uid was
    given as a subordinate id.  If the owner is root, it is the account whose id or subordinate id
    is mapped in the namespace, and root if there is no such account.  It is NOBODY if there are
    several, or if the map can't be read any more.  The caller has to be in the initial user
    namespace and must be allowed to look at the process.  Raises OSError, HookError.
    """
    number, owner = outermost(process)
    if owner != 0:
        return user_of(owner, subuid)
    mapped = _map_of(process, number)
    if mapped is None:
        return NOBODY
    accounts = _accounts(mapped, subuid) - {0}
    if len(accounts) > 1:
        # Set-user-id bubblewrap maps NOBODY as the namespace's root, beside the user's own id.
        accounts.discard(NOBODY)
    if not accounts:
        return 0
    return accounts.pop() if len(accounts) == 1 else NOBODY


def _map_of(process: Process, namespace: int) -> list[tuple[int, int]] | None:
    """The ranges of the host's ids that are mapped in the `namespace` around `process`.

    Each range is a first id and a count.  A namespace's map is written once and can be read only
    through a process in it.  Returns None if there is no such process.
    """
    if process.user_inode() == namespace:
        mapped = id_map(process, "uid")
        return mapped if process.alive() else None
    for pid in pids():
        try:
            with Process(pid) as other:
                if other.user_inode() == namespace:
                    mapped = id_map(other, "uid")
                    if other.alive():
                        return mapped
        except (HookError, OSError):
            continue
    return None


def _accounts(mapped: Sequence[tuple[int, int]], subuid: str) -> set[int]:
    """The users to whom `mapped` ids belong, as accounts or by subordinate ranges.

    A range of a single id counts as a user's even if the host's database doesn't have the id:
    processes can have ids without an account, and no engine maps a container's ids one by one.
    """
    found = {user_of(first, subuid) for first, count in mapped if count == 1}
    found |= {one.pw_uid for one in pwd.getpwall() if within(one.pw_uid, mapped)}
    return found | given_to(mapped, subuid)
