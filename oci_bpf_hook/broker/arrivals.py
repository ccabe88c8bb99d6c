"""Sorts new connections to the broker by what the kernel tells about the peer without any search.

To find out who asks, the broker walks through /proc, and a user can connect far more often than
there is time for that.  So a connection is first counted by SO_PEERCRED's uid alone, which costs
one system call.  A uid that connects far too often is dropped without an answer; the other
connections are examined in turn, one group of uids after the other, and within a group one uid
after the other.
"""

import socket
from collections import OrderedDict, deque
from time import monotonic

from .peer import credentials
from .subids import Ranges

# How many connections of one group may wait.
OF_GROUP = 128
# A user may connect this many times as often as ask.  A connection above the rate of requests gets
# a refusal that says why; a connection above this rate is dropped without an answer.
PATIENCE = 4
# A user who has made no connections for so many seconds may make all of theirs at once.
_BURST = 10
# The most users that are remembered, and for how many seconds.  A user who was forgotten has the
# full credit again.
_REMEMBERED = 4096
_FORGOTTEN = 600


class Credit:
    """Something that may be had `rate` times a second, and `burst` times at once after a pause."""

    __slots__ = ("_burst", "_left", "_rate", "since")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self.since = monotonic()

    def take(self) -> bool:
        """Take one more; returns whether there was one."""
        self._earn()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def whole(self) -> bool:
        """Whether the credit is full."""
        self._earn()
        return self._left >= self._burst

    def _earn(self) -> None:
        now = monotonic()
        self._left = min(self._left + (now - self.since) * self._rate, self._burst)
        self.since = now


class Arrived:
    """A connection by the `uid`, which is in the `group`."""

    __slots__ = ("group", "sock", "uid")

    def __init__(self, sock: socket.socket, uid: int, group: int) -> None:
        self.sock = sock
        self.uid = uid
        self.group = group


class _Group:
    """The connections of a group of uids, whose uids take turns."""

    def __init__(self) -> None:
        self.count = 0
        self._by_uid: OrderedDict[int, deque[Arrived]] = OrderedDict()

    def add(self, one: Arrived) -> None:
        self._by_uid.setdefault(one.uid, deque()).append(one)
        self.count += 1

    def take(self) -> Arrived:
        uid, those = self._by_uid.popitem(last=False)
        one = those.popleft()
        self.count -= 1
        if those:
            self._by_uid[uid] = those
        return one


class Arrivals:
    """The connections to be examined, of users who may ask `rate` times a second (0: no limit)."""

    def __init__(self, rate: float) -> None:
        self._rate = rate * PATIENCE
        # However low the rate is, a user's first few connections aren't dropped.
        self._burst = max(self._rate * _BURST, OF_GROUP)
        self._ranges = Ranges()
        # The users in the order of their latest connections.
        self._credits: OrderedDict[int, Credit] = OrderedDict()
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._count = 0
        self._dropped: dict[int, int] = {}

    def __len__(self) -> int:
        return self._count

    def refresh(self) -> None:
        """Read the subordinate ids again if they have changed, and forget users who stay away."""
        self._ranges.refresh()
        if not self._rate:
            return
        before = monotonic() - min(self._burst / self._rate, _FORGOTTEN)
        while self._credits:
            key, credit = next(iter(self._credits.items()))
            if credit.since > before and len(self._credits) <= _REMEMBERED:
                break
            del self._credits[key]

    def whose(self, sock: socket.socket) -> Arrived | None:
        """The connection `sock` with its uid and group, or None if it is to be dropped.

        Raises OSError.
        """
        _, uid, _ = credentials(sock)
        group = self._ranges.group(uid)
        if self._rate and not self._may(uid if self._ranges.owner(uid) is None else group):
            self._dropped[group] = self._dropped.get(group, 0) + 1
            return None
        return Arrived(sock, uid, group)

    def _may(self, key: int) -> bool:
        """Count one more connection; returns whether it is within the rate."""
        credit = self._credits.get(key)
        if credit is None:
            credit = self._credits[key] = Credit(self._rate, self._burst)
        self._credits.move_to_end(key)
        return credit.take()

    def dropped(self) -> dict[int, int]:
        """How many connections of each group were dropped since the last call."""
        found, self._dropped = self._dropped, {}
        return found

    def of_group(self, group: int) -> int:
        """How many connections of that `group` wait."""
        found = self._groups.get(group)
        return found.count if found else 0

    def groups(self) -> int:
        """How many groups have connections that wait."""
        return len(self._groups)

    def add(self, one: Arrived) -> None:
        """Have the connection wait for its turn to be examined."""
        self._groups.setdefault(one.group, _Group()).add(one)
        self._count += 1

    def most(self) -> tuple[int, int | None]:
        """How many wait of the group with the most waiting connections, and which group that is."""
        if not self._groups:
            return 0, None
        key = max(self._groups, key=self.of_group)
        return self._groups[key].count, key

    def take(self, group: int | None = None) -> Arrived:
        """The connection whose turn it is, of any group or of this `group`; there has to be one."""
        key = next(iter(self._groups)) if group is None else group
        of_it = self._groups.pop(key)
        one = of_it.take()
        self._count -= 1
        if of_it.count:
            # Other groups have their turn first.
            self._groups[key] = of_it
        return one
