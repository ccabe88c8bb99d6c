"""Keeps the connections to the broker whose user is known, until each has its turn.

Users have their turns one after the other, and no user gets more than a share of the room.
"""

import socket
from collections import OrderedDict, deque
from collections.abc import Iterator
from time import monotonic

from .arrivals import OF_GROUP, Credit

# How many seconds a connection may be silent, and how many it may wait for its turn.
SILENCE = 5
TURN = 10
# How many connections of one user may wait.
WAITING_OF_USER = OF_GROUP
# A user who has made no requests for so many seconds may make all of theirs at once.
_BURST = 10


class User:
    """What the broker knows of one user: connections, processes, and how many more are allowed.

    `ready` are the connections that wait for their turn, the oldest first; `waiting` counts all
    connections here, and `workers` the processes that serve the user.
    """

    def __init__(self, rate: float) -> None:
        self.ready: deque[Connection] = deque()
        self.waiting = 0
        self.workers = 0
        self._credit = Credit(rate, rate * _BURST)
        self._limited = rate > 0

    def idle(self) -> bool:
        """Whether there is nothing to remember about this user."""
        return not self.waiting and not self.workers and self._credit.whole()

    def may(self) -> bool:
        """Count one more request; returns whether it is within the rate."""
        return not self._limited or self._credit.take()


class Connection:
    """A connection of the `user` with the `uid`, which is dropped at the `deadline`.

    It is `ready` once it has something to read.
    """

    def __init__(self, sock: socket.socket, uid: int, user: User) -> None:
        self.sock = sock
        self.uid = uid
        self.user = user
        self.ready = False
        self.deadline = monotonic() + SILENCE


class Waiting:
    """All connections that wait, of users who may ask `rate` times a second (0: no limit)."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._users: dict[int, User] = {}
        # In the order in which they came; those that have sent something come last.
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
        """Have `sock` wait; returns None if the user `uid` has too many, or asks too often."""
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
        """The connection has something to read, and waits for its turn from now on."""
        one.ready = True
        one.deadline = monotonic() + TURN
        self._all.move_to_end(one)
        self._turns.setdefault(one.uid)
        one.user.ready.append(one)

    def forget(self, one: Connection) -> None:
        """Remove the connection, if it is here; its socket stays open."""
        if one in self._all:
            del self._all[one]
            one.user.waiting -= 1
            if one in one.user.ready:
                one.user.ready.remove(one)

    def most(self) -> int:
        """How many connections the user who has the most of them has here."""
        return max((user.waiting for user in self._users.values()), default=0)

    def oldest(self) -> Connection:
        """The oldest connection of the user who has the most of them; there has to be one."""
        most = max(self._users.values(), key=lambda user: user.waiting)
        return next(one for one in self._all if one.user is most)

    def next(self, at_once: int) -> Connection | None:
        """The connection whose turn it is, of a user with fewer than `at_once` processes."""
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
        """The connections that have waited for too long; also forgets users who are idle.

        This looks at every connection.
        """
        for uid in [uid for uid, user in self._users.items() if user.idle()]:
            del self._users[uid]
        now = monotonic()
        return [one for one in self._all if one.deadline <= now]
