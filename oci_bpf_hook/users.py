"""Finds the host's user for a uid, in the user database and in /etc/subuid (subuid(5))."""

import os
import pwd
from collections.abc import Sequence

SUBUID = "/etc/subuid"
# podman gives root's containers with --userns=auto this user's subordinate ids.
AUTO_USER = "containers"
# People's uids begin here (systemd's and Debian's convention, and login.defs(5)'s default).
_FIRST_PERSON = 1000
# The user `nobody`, who is never granted anything (include/linux/highuid.h, DEFAULT_OVERFLOWUID).
NOBODY = 65534


def user_of(uid: int, subuid: str = SUBUID) -> int:
    """The uid of the account that has the host's `uid` as a subordinate uid, by the file `subuid`.

    A uid that is an account's own, or that no account or several have, is returned as it is.
    """
    if uid == 0 or _name(uid) is not None:
        return uid
    owners = given_to([(uid, 1)], subuid)
    return owners.pop() if len(owners) == 1 else uid


def given_to(ids: Sequence[tuple[int, int]], subuid: str) -> set[int]:
    """The uids of the accounts that have any of `ids` as subordinate ids, by the file `subuid`.

    Each of `ids` is a first id and a count.  None are found if the file can't be read.  The ids of
    AUTO_USER are in root's own containers, and so they are nobody's, unless a person has that name.
    """
    try:
        with open(subuid, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return set()
    owners: set[str] = set()
    for line in lines:
        # subuid(5): a name or an id, the first id, and how many.
        owner, _, range_ = line.partition(":")
        first, _, count = range_.partition(":")
        if first.isdecimal() and count.isdecimal():
            start, end = int(first), int(first) + int(count)
            if any(start < one + length and one < end for one, length in ids):
                owners.add(owner)
    found: set[int] = set()
    for owner in owners:
        try:
            user = int(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid
        except KeyError:  # An account that has been removed, or AUTO_USER.
            continue
        # Since shadow 4.20 podman gets these ids only if there is such an account.
        if owner != AUTO_USER or user >= _FIRST_PERSON:
            found.add(user)
    return found


def within(number: int, ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether `number` is in one of the `ranges`; each is a first number and a count."""
    return any(first <= number < first + count for first, count in ranges)


def groups_of(user: int) -> list[int]:
    """The gids that the host's database gives the uid `user`; none if it doesn't have the uid."""
    try:
        account = pwd.getpwuid(user)
    except KeyError:
        return []
    return os.getgrouplist(account.pw_name, account.pw_gid)


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
