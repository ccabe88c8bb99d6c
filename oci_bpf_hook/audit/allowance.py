"""Limits how many bytes of the host's logs the refusals of one user take in a minute.

Whoever may ask can be refused twenty times a second, for years.  Hooks, the broker's workers and
the broker itself all count in one small file of root's, so that a user's allowance is the same for
all of them.  If that file can't be opened, nothing is counted, and every refusal is recorded.  The
file holds a fixed number of users, and is locked only as long as it takes to read and write it.
"""

import fcntl
import posix
from _struct import Struct
from time import sleep, time

from ..paths import REFUSALS, RUN
from ..syslog import ERROR, log
from ..values import Value
from .write import line, write

# Bytes in a minute, for each other user and for root, whose engines start the containers of many.
OF_USER = 64 << 10
OF_ROOT = 1 << 20
MINUTE = 60
# The user plus one (0: a free slot), the minute's start, the bytes since then, and how many
# refusals were left out.
_SLOT = Struct("=QQQQ")
# The first slot is for all users who find no other one.
_SLOTS = 128
# How many milliseconds to wait for others who hold the lock.
_TRIES = 50
_FLAGS = posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW


class More(Value):
    """How many refusals of `user` were not recorded one by one.

    `user` is None for refusals of users who had no slot of their own.
    """

    __slots__ = ("count", "user")
    user: int | None
    count: int


def spend(user: int, size: int, *, run: str = RUN) -> bool:
    """Count a refusal of the uid `user`, whose record has `size` bytes.

    `run` is the directory of the file.  Returns whether the refusal may be recorded.
    """
    try:
        with _Table(run) as table:
            return table.spend(user, size, int(time()))
    except OSError:
        return True


def due(*, every: bool = False, run: str = RUN) -> "list[More]":
    """The refusals that were left out in minutes that are over, or with `every` in all minutes.

    Each is returned only once.  `run` is the directory of the file.
    """
    try:
        with _Table(run) as table:
            return table.due(int(time()), every=every)
    except OSError:
        return []


def say_more(to: str, *, every: bool = False) -> None:
    """Put into the trail `to` and into the log how many refusals weren't recorded one by one.

    They are those of the minutes that are over, or with `every` of all minutes.
    """
    for more in due(every=every):
        whose = "others" if more.user is None else f"user {more.user}"
        said = f"{more.count} more refusals of {whose} are not on record one by one"
        fields = {"outcome": "more", "user": more.user, "refused": more.count, "problems": [said]}
        write(to, line(fields), required=False)
        log(ERROR, said)


class _Table:
    """The file, locked, to be used in a `with`."""

    def __init__(self, run: str) -> None:
        self._fd = _open(run)

    def __enter__(self) -> "_Table":
        # The lock is held only briefly; a holder that was stopped meanwhile must not stop us.
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                sleep(0.001)
        data = posix.pread(self._fd, _SLOT.size * _SLOTS, 0).ljust(_SLOT.size * _SLOTS, b"\0")
        self._slots = list(_SLOT.iter_unpack(data))
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self._fd)

    def spend(self, user: int, size: int, now: int) -> bool:
        index = self._index(user, now)
        mark, since, spent, more = self._slots[index]
        if _over(since, now):
            since, spent = now, 0
        most = OF_USER if user else OF_ROOT
        room: bool = spent + size <= most
        self._put(index, mark, since, spent + size * room, more + (not room))
        return room

    def _index(self, user: int, now: int) -> int:
        """The slot of `user`: its own, or else a free one, or else the first slot."""
        free = 0
        for index, (mark, since, _, more) in enumerate(self._slots[1:], 1):
            if mark == user + 1:
                return index
            if not free and (not mark or (_over(since, now) and not more)):
                free = index
        if free:
            self._put(free, user + 1, now, 0, 0)
        return free

    def due(self, now: int, *, every: bool) -> "list[More]":
        found = []
        for index, (mark, since, spent, more) in enumerate(self._slots):
            if more and (every or _over(since, now)):
                found.append(More(user=mark - 1 if index else None, count=more))
                self._put(index, mark, since, spent, 0)
        return found

    def _put(self, index: int, *fields: int) -> None:
        self._slots[index] = fields
        posix.pwrite(self._fd, _SLOT.pack(*fields), index * _SLOT.size)


def _over(since: int, now: int) -> bool:
    """Whether the minute that began then is over; the clock may have been set back."""
    return not since <= now < since + MINUTE


def _open(run: str) -> int:
    path = f"{run}/{REFUSALS}"
    try:
        return posix.open(path, _FLAGS, 0o600)
    except FileNotFoundError:
        from ..whole import make_directory

        make_directory(run)
        return posix.open(path, _FLAGS, 0o600)
