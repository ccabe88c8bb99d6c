"""The broker: a small service of root's that delegates BPF for engines that can't do it themselves.

This process accepts, waits, and counts; each request is served by a process of its own (`worker`),
so that no peer can stop, confuse or fill this one.  A silent connection takes only a file
descriptor, and no user gets more than a share of the descriptors, the processes and the time.

An error in handling one event is recorded and ends that event's connection, but never the loop.
Each event is checked against its registration first, since an earlier event in the same batch may
have dropped its connection.
"""

import os
import resource
import selectors
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from ..audit import allowance
from ..errors import BAD_STATE, LISTED, NO_BROKER, HookError, quote
from ..policy.compiled import Compiled
from ..policy.store.watch import Watched
from ..syslog import ERROR, INFO, log
from ..text.strict_json import json_object
from ..values import Value
from . import wire, worker
from .arrivals import OF_GROUP, Arrivals, Arrived
from .peer import Peer
from .signals import Signals
from .waiting import Connection, User, Waiting

# How many connections may wait, in all.
WAITING = 512
# How many connections are accepted in one turn (the kernel may hold a few times as many), and how
# many are examined in one turn to find out who asks.
_ACCEPTED = 1024
_LOOKED_AT = 16
# One user may have at most one half of the requests that are served at a time.
_SHARE = 2
# Seconds between two checks of all deadlines; also how long nothing is accepted after accept(2)
# failed; also how often what was left out of the record is reported.
_LOOK = 0.25
_REST = 0.25
_SETTLE = allowance.MINUTE + 1
_TOO_MANY = "the broker has too many requests of this user; try it later"
# Encoded once, because there may be thousands of these in a turn.
_TOO_MANY_HERE = json_object(wire.refused(NO_BROKER, [_TOO_MANY])).encode()
_FULL = "the broker has too many requests; try it later"


class Limits(Value):
    """The broker's limits: `workers` requests at a time, and `rate` a second for each user.

    It ends after `idle` seconds without a request.  A `rate` or `idle` of 0 is no limit.
    """

    __slots__ = ("idle", "rate", "workers")
    workers: int
    rate: float
    idle: float


class _Worker(Value):
    """The process of one request, which is killed if it hasn't ended at the `deadline`."""

    __slots__ = ("deadline", "uid", "user")
    uid: int
    user: User
    deadline: float


class Broker:
    """The service on the socket `listening`, which it closes; `run` serves until a signal."""

    def __init__(self, listening: socket.socket, policy: Watched, limits: Limits) -> None:
        self._listening = listening
        self._policy = policy
        self._limits = limits
        self._arrivals = Arrivals(limits.rate)
        self._waiting = Waiting(limits.rate)
        # Some fds are kept for finding out who asks, and for serving.
        self._most = max(min(WAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2), 1)
        self._workers: dict[int, _Worker] = {}
        self._stopping = False
        self._last = monotonic()
        # When to check all deadlines, when to accept again (0: it accepts), and when to report what
        # was left out.
        self._look_at = self._accept_at = 0.0
        self._settle_at = self._last + _SETTLE
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(self._signals, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT, or until nobody has asked for as long as `idle` says."""
        while not (self._stopping and not self._workers):
            self.turn()
            if self._limits.idle and self._is_idle() and not self._stopping:
                log(INFO, "broker: nobody asked for a while; the next request starts it again")
                self._stop()
        self._guarded(self._settle)

    def turn(self) -> None:
        """Wait until something happens, and handle it."""
        for key, _ in self._selector.select(self._patience()):
            self._guarded(self._happens, key)
        for step in (self._signalled, self._find_out, self._expire, self._take_turns):
            self._guarded(step)

    def _guarded(self, work: Callable[..., object], *arguments: object) -> bool:
        """Do `work`; returns whether it succeeded.  Its exceptions don't harm other connections."""
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  One event's failure must not end the broker.
            text = f"broker: a bug of ours: {type(error).__name__}: {quote(str(error))}"
            self._say(0, text)
            return False
        return True

    def _say(self, uid: int, text: str) -> None:
        """Log `text`, which `uid` has caused, if that user's allowance has room for it."""
        if allowance.spend(uid, len(text)):
            log(ERROR, text)

    def _happens(self, key: selectors.SelectorKey) -> None:
        if self._selector.get_map().get(key.fd) is not key:
            # Its connection has been dropped, and the fd may belong to another one by now.
            return
        if key.fileobj is self._listening:
            if not self._guarded(self._accept):
                self._rest()
        elif key.fileobj is self._signals:
            self._signals.awake()
        elif not self._guarded(self._speaks, key.data):
            self._discard(key.data)

    def _signalled(self) -> None:
        """Handle the signals that have come."""
        for number in self._signals.take():
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._policy.forget()
                self._policy.get()
            elif not self._stopping:
                self._stop()

    def _stop(self) -> None:
        """Take no new requests; those whose turn has come are finished."""
        self._stopping = True
        if not self._accept_at:
            self._selector.unregister(self._listening)
        self._listening.close()
        while self._arrivals:
            _refuse(self._arrivals.take().sock, NO_BROKER, "the broker is stopping")
        for one in self._waiting:
            self._drop(one, "the broker is stopping")

    # ---- connections -------------------------------------------------------------------

    def _accept(self) -> None:
        """Accept and count the new connections, without finding out more than the uid of each."""
        self._arrivals.refresh()
        self._last = monotonic()
        for _ in range(_ACCEPTED):
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # No fd or memory is left, so a waiting connection is dropped.
                self._say(0, f"broker: can't accept: {error.strerror}")
                if not self._make_room():
                    self._rest()
                return
            if not self._guarded(self._arrives, sock):
                sock.close()

    def _rest(self) -> None:
        """Don't accept for a moment: a connection that can't be accepted would keep us busy."""
        if not self._accept_at and not self._stopping:
            self._selector.unregister(self._listening)
            self._accept_at = monotonic() + _REST

    def _arrives(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        one = self._arrivals.whose(sock)
        if one is None:
            sock.close()
            return
        full = len(self._arrivals) + len(self._waiting) >= self._most
        # If there is no room, a user who already has a share can't take another's.
        share = self._most // (self._waiting.users() + self._arrivals.groups() + 1) or 1
        if self._arrivals.of_group(one.group) >= (share if full else OF_GROUP):
            with sock, suppress(OSError):
                sock.send(_TOO_MANY_HERE)
            return
        if full:
            self._make_room()
        self._arrivals.add(one)

    def _make_room(self) -> bool:
        """Drop the oldest connection of the user with the most, if any; returns whether it did."""
        arrived, group = self._arrivals.most()
        if self._waiting.most() > arrived:
            self._drop(self._waiting.oldest(), _FULL)
        elif arrived:
            _refuse(self._arrivals.take(group).sock, NO_BROKER, _FULL)
        else:
            return False
        return True

    def _find_out(self) -> None:
        """Find out who is at the other end of the next few connections."""
        for _ in range(min(_LOOKED_AT, len(self._arrivals))):
            one = self._arrivals.take()
            if not self._guarded(self._admit, one):
                one.sock.close()

    def _admit(self, arrived: Arrived) -> None:
        sock = arrived.sock
        try:
            with Peer(sock) as peer:
                # The uid only, not the user's name: asking a directory service for that may take
                # time.
                uid = peer.share()
        except HookError as error:
            self._say(arrived.group, f"broker: {error} (exit code {error.code})")
            _refuse(sock, error.code, *error.sentences)
            return
        except OSError as error:
            _refuse(sock, BAD_STATE, f"the broker can't find out who asks: {error.strerror}")
            return
        one = self._waiting.add(sock, uid)
        if one is None:
            _refuse(sock, NO_BROKER, _TOO_MANY)
        elif not self._guarded(self._selector.register, sock, selectors.EVENT_READ, one):
            self._discard(one)

    def _speaks(self, one: Connection) -> None:
        """A connection has something to read and now waits for its turn, or it has ended."""
        try:
            ended = not one.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            ended = True
        if ended:  # It is dropped here, so that no process is started for it.
            self._discard(one)
            return
        self._selector.unregister(one.sock)
        self._waiting.speaks(one)

    def _drop(self, one: Connection, why: str) -> None:
        self._forget(one)
        _refuse(one.sock, NO_BROKER, why)

    def _discard(self, one: Connection) -> None:
        """Close the connection without an answer."""
        self._forget(one)
        one.sock.close()

    def _forget(self, one: Connection) -> None:
        """Remove it wherever it is kept; its socket stays open."""
        self._waiting.forget(one)
        if one.sock.fileno() >= 0 and self._selector.get_map().get(one.sock) is not None:
            self._selector.unregister(one.sock)

    # ---- clocks ------------------------------------------------------------------------

    def _expire(self) -> None:
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK
        if self._accept_at and now >= self._accept_at and not self._stopping:
            self._accept_at = 0
            self._selector.register(self._listening, selectors.EVENT_READ)
        for one in self._waiting.late():
            self._drop(one, "nothing was asked for" if not one.ready else "the broker is too busy")
        for pid, serving in self._workers.items():
            if serving.deadline <= now:
                # The process has an alarm of its own, but may be stuck where that doesn't reach it.
                self._guarded(_kill, pid)
        if now >= self._settle_at:
            self._settle_at = now + _SETTLE
            self._settle()

    def _settle(self) -> None:
        """Report what was left out: refusals from the record, and dropped connections."""
        dropped = self._arrivals.dropped()
        for group, count in list(dropped.items())[:LISTED]:
            self._say(
                0,
                f"broker: {count} connections of uid {group}, or of the group of ids that begins "
                "there, came too fast and were dropped without an answer",
            )
        if len(dropped) > LISTED:
            self._say(0, f"broker: so were those of {len(dropped) - LISTED} others")
        policy = self._policy.get()
        to = policy.audit_to if isinstance(policy, Compiled) else "none"
        allowance.say_more(to, every=self._stopping)

    def _patience(self) -> float | None:
        """Seconds until something has to be checked again, if nothing happens."""
        if self._arrivals or self._signals:
            return 0
        if self._waiting or self._workers or self._waiting.users() or self._accept_at:
            return _LOOK
        settle = max(self._settle_at - monotonic(), _LOOK)
        return min(settle, self._limits.idle) if self._limits.idle else settle

    def _is_idle(self) -> bool:
        busy = self._waiting or self._workers or self._arrivals
        return not busy and monotonic() - self._last >= self._limits.idle

    # ---- processes ---------------------------------------------------------------------

    def _take_turns(self) -> None:
        """Start processes for the connections whose turn it is, one user after the other."""
        at_once = max(self._limits.workers // _SHARE, 1)
        while len(self._workers) < self._limits.workers:
            one = self._waiting.next(at_once)
            if one is None:
                return
            if not self._guarded(self._start, one):
                self._discard(one)

    def _start(self, one: Connection) -> None:
        policy = self._policy.get()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._say(0, f"broker: can't fork: {error.strerror}")
            self._drop(one, f"the broker can't fork: {error.strerror}")
            return
        if pid == 0:
            try:
                worker.serve(one.sock, policy, parent)
            finally:
                # Whatever happens, the child must not go on as a second broker.
                os._exit(1)
        deadline = monotonic() + worker.DEADLINE + 1
        self._workers[pid] = _Worker(uid=one.uid, user=one.user, deadline=deadline)
        one.user.workers += 1
        self._discard(one)

    def _reap(self) -> None:
        """Handle the processes that have ended."""
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # No child is left, because something else has reaped them.
                for pid in list(self._workers):
                    self._ended(pid, 0)
                return
            if not pid:
                return
            self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        ended = self._workers.pop(pid, None)
        if ended is None:  # A child that this process had before it became the broker.
            return
        ended.user.workers -= 1
        self._last = monotonic()
        if status:
            uid = ended.uid
            self._say(uid, f"broker: a request of uid {uid} ended with status {status:#x}")


def _kill(pid: int) -> None:
    """Kill a child of ours; its pid can't be another process's, because it wasn't reaped yet."""
    with suppress(ProcessLookupError):  # It has gone, and something else has reaped it.
        os.kill(pid, signal.SIGKILL)


def _refuse(sock: socket.socket, code: int, *problems: str) -> None:
    """Send the refusal, if the peer reads, and close the connection."""
    with sock:
        try:
            sock.setblocking(False)
            worker.answer(sock, wire.refused(code, problems))
        except OSError:
            pass
