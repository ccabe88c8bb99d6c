"""Connections to the broker of which it is known whose they are, until each has its turn.

Users have their turns one after the other, and none has more than a share of the room.
"""

import socket
from collections import OrderedDict, deque
from collections.abc import Iterator
from time import monotonic

from .arrivals import OF_GROUP, Credit

# Seconds that a connection may be silent, and that it may wait for its turn.
SILENCE = 5
TURN = 10
# Connections that wait, of one user.
WAITING_OF_USER = OF_GROUP
# A user may save up so many seconds of requests.
_BURST = 10


class User:
    """What one user has under way: connections whose turn it would be, processes, and credit."""

    def __init__(self, rate: float) -> None:
        self.ready: deque[Connection] = deque()
        self.waiting = 0
        self.workers = 0
        self._credit = Credit(rate, rate * _BURST)
        self._limited = rate > 0

    def idle(self) -> bool:
        """Whether there is nothing to be remembered of this user."""
        return not self.waiting and not self.workers and self._credit.whole()

    def may(self) -> bool:
        """Whether one more request is within the rate, which counts it."""
        return not self._limited or self._credit.take()


class Connection:
    """A connection that has not had its turn, of the `user` with the `uid`, until `deadline`."""

    def __init__(self, sock: socket.socket, uid: int, user: User) -> None:
        self.sock = sock
        self.uid = uid
        self.user = user
        self.ready = False
        self.deadline = monotonic() + SILENCE


class Waiting:
    """All that wait, of users that may ask `rate` times a second (0: any)."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._users: dict[int, User] = {}
        # In the order in which they came, those that have spoken after the others.
        self._all: OrderedDict[Connection, None] = OrderedDict()
        self._turns: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def users(self) -> int:
        """How many users are remembered."""
        return len(self._users)

    def add(self, sock: socket.socket, uid: int) -> Connection | None:
        """Have it wait; None where the user `uid` has too many, or asks too often."""
        user = self._users.get(uid)
        if user is None:
            user = self._users[uid] = User(self._rate)
        if user.waiting >= WAITING_OF_USER or not user.may():
            return None
        one = Connection(sock, uid, user)
        user.waiting += 1
        self._all[one] = None
        return one

    def speaks(self, one: Connection) -> None:
        """It has something to read, and from now on waits for its turn."""
        one.ready = True
        one.deadline = monotonic() + TURN
        self._all.move_to_end(one)
        self._turns.setdefault(one.uid)
        one.user.ready.append(one)

    def forget(self, one: Connection) -> None:
        """Take it out, if it is in there; its socket stays open."""
        if one in self._all:
            del self._all[one]
            one.user.waiting -= 1
            if one in one.user.ready:
                one.user.ready.remove(one)

    def most(self) -> int:
        """How many wait of the user who has most."""
        return max((user.waiting for user in self._users.values()), default=0)

    def oldest(self) -> Connection:
        """The oldest of the user who has most; there has to be one."""
        most = max(self._users.values(), key=lambda user: user.waiting)
        return next(one for one in self._all if one.user is most)

    def next(self, at_once: int) -> Connection | None:
        """The one whose turn it is, of a user with fewer than `at_once` processes."""
        for _ in range(len(self._turns)):
            uid, _ = self._turns.popitem(last=False)
            user = self._users.get(uid)
            if user is None or not user.ready:
                continue
            self._turns[uid] = None
            if user.workers < at_once:
                return user.ready[0]
        return None

    def late(self) -> list[Connection]:
        """Those that have waited for too long; users of whom nothing is to be known are forgotten.

        That takes a look at each.
        """
        for uid in [uid for uid, user in self._users.items() if user.idle()]:
            del self._users[uid]
        now = monotonic()
        return [one for one in self._all if one.deadline <= now]
