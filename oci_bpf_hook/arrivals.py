"""Connections to the broker that nobody has looked at yet, by what the kernel says for nothing.

To find out who asks takes a walk through /proc, and a user can connect far more often than there
is time for that.  So whoever connects is counted first by SO_PEERCRED's uid alone, which costs one
system call: whoever comes far too often is dropped unheard, and the others are looked at in turn,
one group of uids after the other, and in a group one uid after the other.
"""

import socket
from collections import OrderedDict, deque
from struct import Struct
from time import monotonic

from .subids import Ranges

_CREDENTIALS = Struct("=iII")
# Of one group, that wait to be looked at.
OF_GROUP = 128
# So many times as often as a user may ask a user may connect: those between are told why they get
# nothing, and those beyond aren't.
PATIENCE = 4
# Seconds of connections that a user may save up.
_BURST = 10
# So many are remembered, for so many seconds at the most; whoever is forgotten has all of their
# credit back.
_REMEMBERED = 4096
_FORGOTTEN = 600


class Credit:
    """What may be had `rate` times a second, and `burst` times at once after a while without."""

    __slots__ = ("_burst", "_left", "_rate", "since")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self.since = monotonic()

    def take(self) -> bool:
        """Whether there is one more, which is taken."""
        self._earn()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def whole(self) -> bool:
        """Whether there is as much as there may be."""
        self._earn()
        return self._left >= self._burst

    def _earn(self) -> None:
        now = monotonic()
        self._left = min(self._left + (now - self.since) * self._rate, self._burst)
        self.since = now


class Arrived:
    """A connection of the `group`, by the `uid`."""

    __slots__ = ("group", "sock", "uid")

    def __init__(self, sock: socket.socket, uid: int, group: int) -> None:
        self.sock = sock
        self.uid = uid
        self.group = group


class _Group:
    """The connections of a group of uids: in turn those of each."""

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
    """Those that wait to be looked at, of users that may ask `rate` times a second (0: any)."""

    def __init__(self, rate: float) -> None:
        self._rate = rate * PATIENCE
        # However low the rate is, nobody is dropped for the first few.
        self._burst = max(self._rate * _BURST, OF_GROUP)
        self._ranges = Ranges()
        # In the order in which they came last.
        self._credits: OrderedDict[int, Credit] = OrderedDict()
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._count = 0
        self._dropped: dict[int, int] = {}

    def __len__(self) -> int:
        return self._count

    def refresh(self) -> None:
        """Look whether subordinate ids have been given to others, and forget who has gone."""
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
        """Whose connection `sock` is; None if it is to be dropped.  Raises OSError."""
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        group = self._ranges.group(uid)
        if self._rate and not self._may(uid if self._ranges.owner(uid) is None else group):
            self._dropped[group] = self._dropped.get(group, 0) + 1
            return None
        return Arrived(sock, uid, group)

    def _may(self, key: int) -> bool:
        """Whether one more connection is within the rate, which counts it."""
        credit = self._credits.get(key)
        if credit is None:
            credit = self._credits[key] = Credit(self._rate, self._burst)
        self._credits.move_to_end(key)
        return credit.take()

    def dropped(self) -> dict[int, int]:
        """How many have been dropped of each group, since this was asked last."""
        found, self._dropped = self._dropped, {}
        return found

    def of_group(self, group: int) -> int:
        """How many of that `group` wait."""
        found = self._groups.get(group)
        return found.count if found else 0

    def groups(self) -> int:
        """How many groups have some that wait."""
        return len(self._groups)

    def add(self, one: Arrived) -> None:
        """Have it wait for its turn to be looked at."""
        self._groups.setdefault(one.group, _Group()).add(one)
        self._count += 1

    def most(self) -> tuple[int, int | None]:
        """How many wait of the group that has most, and which that is."""
        if not self._groups:
            return 0, None
        key = max(self._groups, key=self.of_group)
        return self._groups[key].count, key

    def take(self, group: int | None = None) -> Arrived:
        """The one whose turn it is, or the oldest of a `group`; there has to be one."""
        key = next(iter(self._groups)) if group is None else group
        of_it = self._groups.pop(key)
        one = of_it.take()
        self._count -= 1
        if of_it.count:
            # It is the others' turn.
            self._groups[key] = of_it
        return one
