"""The broker: a small service of root's that delegates BPF for those who can't themselves.

It accepts, waits, and counts; each request is served by a process of its own (`session`), and so
nothing that a peer does can stop, confuse or fill this one.  A connection that says nothing costs
a file descriptor, and no user has more than a share of those, of the processes and of the time.
"""

import os
import resource
import selectors
import signal
import socket
from collections import OrderedDict, deque
from time import monotonic

from . import session, wire
from .container import is_initial
from .errors import BAD_STATE, NO_BROKER, HookError
from .log import ERROR, INFO, log
from .peer import Peer
from .policywatch import Watched
from .record import Record

# Seconds that a connection may be silent, and that it may wait for its turn.
SILENCE = 5
TURN = 10
# Connections that wait, in all and of one user.
WAITING = 512
WAITING_OF_USER = 128
# Requests of one user at a time, of all that are served at a time: half.
_SHARE = 2
# A user may save up so many seconds of requests.
_BURST = 10


class Limits(Record):
    """What it takes on: `workers` requests at a time, `rate` a second of one user (0: any)."""

    __slots__ = ("idle", "rate", "workers")
    workers: int
    rate: float
    # Seconds without a request after which it ends; 0 for never.
    idle: float


class _User:
    """What one user has under way: connections whose turn it would be, processes, and credit."""

    def __init__(self, rate: float) -> None:
        self.ready: deque[_Waiting] = deque()
        self.waiting = 0
        self.workers = 0
        self._credit = rate * _BURST
        self._since = monotonic()

    def idle(self, rate: float) -> bool:
        """Whether there is nothing to be remembered of this user."""
        if self.waiting or self.workers:
            return False
        self._earn(rate)
        return self._credit >= rate * _BURST

    def may(self, rate: float) -> bool:
        """Whether one more request is within the `rate`, which counts it."""
        if not rate:
            return True
        self._earn(rate)
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _earn(self, rate: float) -> None:
        now = monotonic()
        self._credit = min(self._credit + (now - self._since) * rate, rate * _BURST)
        self._since = now


class _Waiting:
    """A connection that has not had its turn, of the user `uid`, until `deadline`."""

    def __init__(self, sock: socket.socket, uid: int) -> None:
        self.sock = sock
        self.uid = uid
        self.ready = False
        self.deadline = monotonic() + SILENCE


class _Worker(Record):
    """The process of one request."""

    __slots__ = ("pid", "uid")
    pid: int
    uid: int


class Broker:
    """The service on the socket `listening`, which it closes; `run` serves until it is told."""

    def __init__(self, listening: socket.socket, policy: Watched, limits: Limits) -> None:
        self._listening = listening
        self._policy = policy
        self._limits = limits
        self._users: dict[int, _User] = {}
        # In the order of their deadlines, as far as they have said nothing yet.
        self._waiting: OrderedDict[_Waiting, None] = OrderedDict()
        # To find out who asks, and to serve, takes some fds as well.
        self._most = min(WAITING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._turns: deque[int] = deque()
        self._workers: dict[int, tuple[_Worker, float]] = {}
        self._stopping = False
        self._last = monotonic()
        self._selector = selectors.DefaultSelector()
        self._wakeup, ours = socket.socketpair()
        for end in (self._wakeup, ours):
            end.setblocking(False)
        signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
        self._ours = ours
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # What they do is done where they are read.
            signal.signal(number, _nothing)
        listening.setblocking(False)

    def run(self) -> None:
        """Serve, until SIGTERM or, if there is a limit, until nobody has asked for so long."""
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        while not (self._stopping and not self._workers):
            for key, _ in self._selector.select(self._patience()):
                self._happens(key)
            self._expire()
            self._take_turns()
            if self._limits.idle and self._is_idle():
                log(INFO, "broker: nobody has asked for a while; it starts again when one does")
                break
        self._stop()

    def _happens(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listening:
            self._accept()
        elif key.fileobj is self._wakeup:
            for number in self._wakeup.recv(4096):
                self._signalled(number)
        elif isinstance(key.data, _Waiting):
            self._speaks(key.data)
        else:
            self._ended(key.fd)

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._policy.forget()
            self._policy.get()
        elif not self._stopping:
            self._stop()

    def _stop(self) -> None:
        """Take nothing more on; what has its turn is finished."""
        self._stopping = True
        if self._listening.fileno() >= 0:
            self._selector.unregister(self._listening)
            self._listening.close()
        for one in list(self._waiting):
            self._drop(one, "the broker is stopping")

    # ---- connections -------------------------------------------------------------------

    def _accept(self) -> None:
        # A few at a time, so that those who are here already get on as well.
        for _ in range(16):
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # No memory: one of those who wait goes.
                log(ERROR, f"broker: can't accept: {error.strerror}")
                if self._waiting:
                    self._make_room()
                return
            self._last = monotonic()
            sock.setblocking(False)
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        try:
            with Peer(sock) as peer:
                # Not who that is: to ask a directory service may take time.
                uid = peer.container.outermost_owner()
        except HookError as error:
            log(ERROR, f"broker: {error} (exit code {error.code})")
            _refuse(sock, error.code, *error.problems)
            return
        except OSError as error:
            _refuse(sock, BAD_STATE, f"who asks can't be found out: {error.strerror}")
            return
        user = self._users.setdefault(uid, _User(self._limits.rate))
        if user.waiting >= WAITING_OF_USER or not user.may(self._limits.rate):
            _refuse(sock, NO_BROKER, "the broker has too many requests of this user; try it later")
            return
        if len(self._waiting) >= self._most:
            self._make_room()
        one = _Waiting(sock, uid)
        user.waiting += 1
        self._waiting[one] = None
        self._selector.register(sock, selectors.EVENT_READ, one)

    def _make_room(self) -> None:
        """Drop the oldest connection of whoever has most of them."""
        most = max(self._users, key=lambda uid: self._users[uid].waiting)
        oldest = next(one for one in self._waiting if one.uid == most)
        self._drop(oldest, "the broker has too many requests; try it later")

    def _speaks(self, one: _Waiting) -> None:
        """A connection has something to read, or has ended: from now on it waits for its turn."""
        self._selector.unregister(one.sock)
        one.ready = True
        one.deadline = monotonic() + TURN
        self._waiting.move_to_end(one)
        user = self._users[one.uid]
        if not user.ready:
            self._turns.append(one.uid)
        user.ready.append(one)

    def _drop(self, one: _Waiting, why: str) -> None:
        if one.ready:
            self._users[one.uid].ready.remove(one)
        else:
            self._selector.unregister(one.sock)
        self._forget(one)
        _refuse(one.sock, NO_BROKER, why)

    def _forget(self, one: _Waiting) -> None:
        del self._waiting[one]
        self._users[one.uid].waiting -= 1

    def _expire(self) -> None:
        now = monotonic()
        for one in [one for one in self._waiting if one.deadline <= now]:
            self._drop(one, "nothing was asked for" if not one.ready else "the broker is too busy")
        for worker, deadline in list(self._workers.values()):
            if deadline <= now:
                # It has a clock of its own, and whatever keeps it from hearing that.
                os.kill(worker.pid, signal.SIGKILL)
        for uid in [uid for uid, user in self._users.items() if user.idle(self._limits.rate)]:
            del self._users[uid]

    def _patience(self) -> float | None:
        """Seconds until something has to be looked at again, if nothing happens."""
        if self._waiting or self._workers or self._users:
            return 0.5
        return self._limits.idle or None

    def _is_idle(self) -> bool:
        busy = self._waiting or self._workers
        return not busy and monotonic() - self._last >= self._limits.idle

    # ---- processes ---------------------------------------------------------------------

    def _take_turns(self) -> None:
        """Start processes for those whose turn it is, one user after the other."""
        for _ in range(len(self._turns)):
            if len(self._workers) >= self._limits.workers:
                return
            uid = self._turns.popleft()
            user = self._users.get(uid)
            if user is None or not user.ready:
                continue
            if user.workers < max(self._limits.workers // _SHARE, 1):
                self._start(user.ready.popleft())
            if user.ready:
                self._turns.append(uid)

    def _start(self, one: _Waiting) -> None:
        self._forget(one)
        policy = self._policy.get()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            _refuse(one.sock, NO_BROKER, f"the broker can't fork: {error.strerror}")
            return
        if pid == 0:
            session.serve(one.sock, policy, parent)
        one.sock.close()
        pidfd = os.pidfd_open(pid)
        self._selector.register(pidfd, selectors.EVENT_READ)
        deadline = monotonic() + session.DEADLINE + 1
        self._workers[pidfd] = _Worker(pid=pid, uid=one.uid), deadline
        self._users[one.uid].workers += 1

    def _ended(self, pidfd: int) -> None:
        worker, _ = self._workers.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(worker.pid, 0)
        if status:
            log(ERROR, f"broker: a request of uid {worker.uid} ended with status {status:#x}")
        self._users[worker.uid].workers -= 1
        self._last = monotonic()


def _nothing(number: int, frame: object) -> None:
    """A signal's handler, so that it doesn't end us."""


def _refuse(sock: socket.socket, code: int, *problems: str) -> None:
    """Say so, if the peer listens, and hang up."""
    with sock:
        try:
            sock.setblocking(False)
            session.answer(sock, wire.refused(code, problems))
        except OSError:
            pass


# ---- starting ------------------------------------------------------------------------------


def require_host() -> None:
    """Raise HookError (NO_BROKER) unless this process is where a broker can work."""
    if not is_initial() or os.geteuid():
        raise HookError(
            NO_BROKER, "the broker is root's service in the initial user namespace; start it there"
        )


def inherited() -> socket.socket | None:
    """The socket that systemd has opened (sd_listen_fds), or None.  Raises HookError."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if os.environ.get("LISTEN_FDS") != "1":
        raise HookError(NO_BROKER, "the broker takes exactly one socket from whoever starts it")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sock = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    wanted = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (sock.family, sock.type) != wanted or not listens:
        raise HookError(
            NO_BROKER, "the socket that was passed is no listening ListenSequentialPacket= one"
        )
    return sock


def listen(path: str, mode: int, group: int) -> socket.socket:
    """A new listening socket at `path`; one that nobody listens at any more is replaced.

    Its directory is made if it is missing; -1 is no `group`.  Raises HookError (NO_BROKER).
    """
    directory = os.path.dirname(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    new = f"{path}.{os.getpid()}"
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory)
            os.chmod(directory, 0o755)  # noqa: S103  Whoever may ask has to come there.
        if _answers(path):
            raise HookError(NO_BROKER, f"another broker listens at {path} already")
        # The file gets the socket's own mode, less the umask: whoever may write to the directory
        # could put something else in its place before a chmod(2).
        os.fchmod(sock.fileno(), mode)
        before = os.umask(0)
        try:
            sock.bind(new)
        finally:
            os.umask(before)
        os.chown(new, -1, group, follow_symlinks=False)
        sock.listen(socket.SOMAXCONN)
        # At once: a client finds the old one, which refuses, or this one.
        os.rename(new, path)
    except OSError as error:
        raise HookError(NO_BROKER, f"the broker can't listen at {path}: {error}") from None
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
        return True


def notify(state: str) -> None:
    """Tell systemd, if it is that which started us (sd_notify); what fails is no matter."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            sock.send(state.encode())
        except OSError:
            pass
