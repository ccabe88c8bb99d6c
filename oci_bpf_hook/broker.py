"""The broker: a small service of root's that delegates BPF for those who can't themselves.

It accepts, waits, and counts; each request is served by a process of its own (`session`), and so
nothing that a peer does can stop, confuse or fill this one.  A connection that says nothing costs
a file descriptor, and no user has more than a share of those, of the processes and of the time.

Whatever goes wrong with one event is put on record and costs its own connection, and never the
loop; and an event counts only for what it was registered for, since one before it in the same
batch may have dropped that.
"""

import os
import resource
import selectors
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from . import allowance, session, wire
from .arrivals import OF_GROUP, Arrivals, Arrived
from .compiled import Compiled
from .errors import BAD_STATE, LISTED, NO_BROKER, HookError, quote
from .log import ERROR, INFO, log
from .peer import Peer
from .policywatch import Watched
from .record import Record
from .strict_json import json_object
from .trail import say_more
from .waiting import Connection, User, Waiting

# Connections that wait, in all.
WAITING = 512
# In one turn: connections that are taken from the kernel, which keeps a few times as many, and
# those of them of which it is found out who they are.
_ACCEPTED = 1024
_LOOKED_AT = 16
# Requests of one user at a time, of all that are served at a time: half.
_SHARE = 2
# Seconds between two looks at the clocks of all that waits, without accepting where nothing can
# be, and until it is told what was left out of the record.
_LOOK = 0.25
_REST = 0.25
_SETTLE = allowance.MINUTE + 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_TOO_MANY = "the broker has too many requests of this user; try it later"
# There may be thousands in a turn.
_TOO_MANY_HERE = json_object(wire.refused(NO_BROKER, [_TOO_MANY])).encode()
_FULL = "the broker has too many requests; try it later"


class Limits(Record):
    """What it takes on: `workers` requests at a time, `rate` a second of one user (0: any)."""

    __slots__ = ("idle", "rate", "workers")
    workers: int
    rate: float
    # Seconds without a request after which it ends; 0 for never.
    idle: float


class _Worker(Record):
    """The process of one request, and when it is ended if it hasn't yet."""

    __slots__ = ("deadline", "uid", "user")
    uid: int
    user: User
    deadline: float


class Broker:
    """The service on the socket `listening`, which it closes; `run` serves until it is told."""

    def __init__(self, listening: socket.socket, policy: Watched, limits: Limits) -> None:
        self._listening = listening
        self._policy = policy
        self._limits = limits
        self._arrivals = Arrivals(limits.rate)
        self._waiting = Waiting(limits.rate)
        # To find out who asks, and to serve, takes some fds as well.
        self._most = max(min(WAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2), 1)
        self._workers: dict[int, _Worker] = {}
        self._stopping = False
        self._last = monotonic()
        # When to look at all clocks, to accept again (0: it does), and to tell what was left out.
        self._look_at = self._accept_at = 0.0
        self._settle_at = self._last + _SETTLE
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._ours = socket.socketpair()
        self._signals: set[int] = set()
        self._take_signals()
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)

    def _take_signals(self) -> None:
        for end in (self._wakeup, self._ours):
            end.setblocking(False)
        # It wakes us and says nothing, so that none is lost where it is full.
        signal.set_wakeup_fd(self._ours.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda number, _: self._signals.add(number))
        # Whoever starts us may have blocked them, and a mask is inherited.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def run(self) -> None:
        """Serve, until SIGTERM or, if there is a limit, until nobody has asked for so long."""
        while not (self._stopping and not self._workers):
            self.turn()
            if self._limits.idle and self._is_idle() and not self._stopping:
                log(INFO, "broker: nobody has asked for a while; it starts again when one does")
                self._stop()
        self._guarded(self._settle)

    def turn(self) -> None:
        """Wait until something happens, and see to it."""
        for key, _ in self._selector.select(self._patience()):
            self._guarded(self._happens, key)
        for step in (self._signalled, self._find_out, self._expire, self._take_turns):
            self._guarded(step)

    def _guarded(self, work: Callable[..., object], *arguments: object) -> bool:
        """Do that; whether it went well.  What goes wrong with it isn't the others' matter."""
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  One event's failure is not the broker's end.
            text = f"broker: a bug of ours: {type(error).__name__}: {quote(str(error))}"
            self._say(0, text)
            return False
        return True

    def _say(self, uid: int, text: str) -> None:
        """Log that, of what `uid` has caused, as far as its allowance goes."""
        if allowance.spend(uid, len(text)):
            log(ERROR, text)

    def _happens(self, key: selectors.SelectorKey) -> None:
        if self._selector.get_map().get(key.fd) is not key:
            # What it was about has been dropped, and the number may be another's by now.
            return
        if key.fileobj is self._listening:
            if not self._guarded(self._accept):
                self._rest()
        elif key.fileobj is self._wakeup:
            self._wakeup.recv(4096)
        elif not self._guarded(self._speaks, key.data):
            self._discard(key.data)

    def _signalled(self) -> None:
        """See to the signals that have come.  Each is taken before it is answered."""
        while self._signals:
            number = self._signals.pop()
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._policy.forget()
                self._policy.get()
            elif not self._stopping:
                self._stop()

    def _stop(self) -> None:
        """Take nothing more on; what has its turn is finished."""
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
        """Take what has come, with no more than a glance at each: whoever is last gets on, too."""
        self._arrivals.refresh()
        self._last = monotonic()
        for _ in range(_ACCEPTED):
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # No fd, or no memory: one of those who wait goes.
                self._say(0, f"broker: can't accept: {error.strerror}")
                if not self._make_room():
                    self._rest()
                return
            if not self._guarded(self._arrives, sock):
                sock.close()

    def _rest(self) -> None:
        """Don't accept for a moment: what can't be taken now would keep us busy."""
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
        # Where there is no room, whoever has a share already takes none of the others'.
        share = self._most // (self._waiting.users() + self._arrivals.groups() + 1) or 1
        if self._arrivals.of_group(one.group) >= (share if full else OF_GROUP):
            with sock, suppress(OSError):
                sock.send(_TOO_MANY_HERE)
            return
        if full:
            self._make_room()
        self._arrivals.add(one)

    def _make_room(self) -> bool:
        """Drop the oldest connection of whoever has most of them; whether there was any."""
        arrived, group = self._arrivals.most()
        if self._waiting.most() > arrived:
            self._drop(self._waiting.oldest(), _FULL)
        elif arrived:
            _refuse(self._arrivals.take(group).sock, NO_BROKER, _FULL)
        else:
            return False
        return True

    def _find_out(self) -> None:
        """Find out who the next few are, one after the other."""
        for _ in range(min(_LOOKED_AT, len(self._arrivals))):
            one = self._arrivals.take()
            if not self._guarded(self._admit, one):
                one.sock.close()

    def _admit(self, arrived: Arrived) -> None:
        sock = arrived.sock
        try:
            with Peer(sock) as peer:
                # Not who that is: to ask a directory service may take time.
                uid = peer.share()
        except HookError as error:
            self._say(arrived.group, f"broker: {error} (exit code {error.code})")
            _refuse(sock, error.code, *error.sentences)
            return
        except OSError as error:
            _refuse(sock, BAD_STATE, f"who asks can't be found out: {error.strerror}")
            return
        one = self._waiting.add(sock, uid)
        if one is None:
            _refuse(sock, NO_BROKER, _TOO_MANY)
        elif not self._guarded(self._selector.register, sock, selectors.EVENT_READ, one):
            self._discard(one)

    def _speaks(self, one: Connection) -> None:
        """A connection has something to read, and now waits for its turn; or it has ended."""
        try:
            ended = not one.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            ended = True
        if ended:  # It takes no process to find that out.
            self._discard(one)
            return
        self._selector.unregister(one.sock)
        self._waiting.speaks(one)

    def _drop(self, one: Connection, why: str) -> None:
        self._forget(one)
        _refuse(one.sock, NO_BROKER, why)

    def _discard(self, one: Connection) -> None:
        """Hang up without a word."""
        self._forget(one)
        one.sock.close()

    def _forget(self, one: Connection) -> None:
        """Take it out of everything, as far as it is in there; its socket stays open."""
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
        for pid, worker in self._workers.items():
            if worker.deadline <= now:
                # It has a clock of its own, and whatever keeps it from hearing that.
                self._guarded(_kill, pid)
        if now >= self._settle_at:
            self._settle_at = now + _SETTLE
            self._settle()

    def _settle(self) -> None:
        """Tell what was left out: of the record, and of those that came."""
        dropped = self._arrivals.dropped()
        for group, count in list(dropped.items())[:LISTED]:
            self._say(
                0,
                f"broker: {count} connections of uid {group}, or of whose ids begin there, came "
                "too fast and were dropped unheard",
            )
        if len(dropped) > LISTED:
            self._say(0, f"broker: and those of {len(dropped) - LISTED} others")
        policy = self._policy.get()
        say_more(policy.audit_to if isinstance(policy, Compiled) else "none", every=self._stopping)

    def _patience(self) -> float | None:
        """Seconds until something has to be looked at again, if nothing happens."""
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
        """Start processes for those whose turn it is, one user after the other."""
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
                session.serve(one.sock, policy, parent)
            finally:
                # Whatever happens, there is no second broker.
                os._exit(1)
        deadline = monotonic() + session.DEADLINE + 1
        self._workers[pid] = _Worker(uid=one.uid, user=one.user, deadline=deadline)
        one.user.workers += 1
        self._discard(one)

    def _reap(self) -> None:
        """See to the processes that have ended."""
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # There is none left, whoever has seen to them.
                for pid in list(self._workers):
                    self._ended(pid, 0)
                return
            if not pid:
                return
            self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        worker = self._workers.pop(pid, None)
        if worker is None:  # Whoever started us had it before.
            return
        worker.user.workers -= 1
        self._last = monotonic()
        if status:
            uid = worker.uid
            self._say(uid, f"broker: a request of uid {uid} ended with status {status:#x}")


def _kill(pid: int) -> None:
    """End a process of ours that hasn't been waited for, and so is nobody else's."""
    with suppress(ProcessLookupError):  # It has gone, and whoever has seen to it.
        os.kill(pid, signal.SIGKILL)


def _refuse(sock: socket.socket, code: int, *problems: str) -> None:
    """Say so, if the peer listens, and hang up."""
    with sock:
        try:
            sock.setblocking(False)
            session.answer(sock, wire.refused(code, problems))
        except OSError:
            pass
