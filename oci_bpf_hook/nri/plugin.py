"""The NRI plugin: when an engine creates a container that asks, it delegates BPF to it.

All pods of a node wait for each answer, so this process never does anything that may take long.  A
container that doesn't ask is answered at once; every other creation is served by a process of its
own (`worker`), and if that isn't done in time, the creation is refused.  An engine goes on without
a plugin that doesn't answer, and so creates the container as if it hadn't asked; therefore our own
deadline is well before the engine's.
"""

import fcntl
import os
import selectors
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from ..broker.listening import notify
from ..broker.signals import Signals
from ..errors import BUG, MOUNT_FAILED, HookError, bug, quote
from ..policy.store.watch import Watched
from ..syslog import ERROR, INFO, log
from . import worker
from .connection import FIRST_PAUSE, LONGEST_PAUSE, Connection
from .place import EngineHalf
from .tasks import BEGINS, COLLECTS, CREATES, Task, Tasks
from .wire import messages, ttrpc
from .wire.messages import Configuration
from .wire.mux import OutOfStepError
from .wire.protobuf import MalformedError
from .wire.session import Call, RefusedError

# We answer after at most so many seconds, and within this part of the engine's time limit, which is
# assumed to be the last of these if the engine doesn't tell it.
_DEADLINE = 1.2
_PART = 0.6
_ENGINES_DEADLINE = 2.0
# The most bytes of answers that an engine may leave unread.
_UNREAD = 1 << 20
# The most seconds that stopping waits for mounts to be taken away.
_STOPPING = 3


class Plugin:
    """The plugin that registers as `name` and `index`; `run` serves until a signal.

    `connect` makes a new connection, or raises OSError.  If the plugin isn't to connect `again`, it
    ends with its first connection.
    """

    def __init__(
        self,
        name: str,
        index: str,
        policy: Watched,
        connect: Callable[[], socket.socket],
        *,
        again: bool = True,
    ) -> None:
        self._who = (name, index)
        self._policy = policy
        self._connect = connect
        self._again = again
        self._connection: Connection | None = None
        self._runtime = ""
        self._patience = _PART * _ENGINES_DEADLINE
        # The containers that may have a mount of ours where their engine finds it.
        self._mounted: set[str] = set()
        # The containers that a Synchronize in parts has told of so far.
        self._told: list[bytes] = []
        self._lock = -1
        self._stopping = False
        self._pause = FIRST_PAUSE
        self._connect_at = 0.0
        self._said = ""
        self._signals = Signals()
        self._selector = selectors.DefaultSelector()
        self._tasks = Tasks(self._selector)
        self._selector.register(self._signals, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until a signal says that it is enough, and what was begun by then is done."""
        while not (self._stopping and not self._tasks.running()):
            self.turn()
        self._hang_up("stopping")

    def turn(self) -> None:
        """Wait until something happens, and handle it."""
        for key, _ in self._selector.select(self._until()):
            self._guarded(self._happens, key)
        for step in (self._signalled, self._expire, self._try_to_connect, self._flush):
            self._guarded(step)

    def _guarded(self, work: Callable[..., object], *arguments: object) -> None:
        """Do `work`; a bug in it must not end the plugin."""
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  One event's failure must not end the plugin.
            self._say(ERROR, bug(error))

    def _say(self, priority: int, text: str) -> None:
        """Log `text`, unless it is what was said last; in a pod nobody but its log has it."""
        if text != self._said:
            self._said = text
            log(priority, f"{worker.WHO}: {text}")
            with suppress(OSError):
                os.write(2, f"oci-bpf-hook: {text}\n".encode("utf-8", "backslashreplace"))

    def _until(self) -> float | None:
        """Seconds until something has to be done, if nothing happens."""
        due = self._tasks.due()
        if self._connection is None and not self._stopping:
            due = min(due or self._connect_at, self._connect_at)
        if self._signals:
            return 0
        return None if due is None else max(due - monotonic(), 0)

    def _happens(self, key: selectors.SelectorKey) -> None:
        if self._selector.get_map().get(key.fd) is not key:
            return
        if key.fileobj is self._signals:
            self._signals.awake()
        elif isinstance(key.data, Task):
            self._answered(key.data)
        else:
            self._speaks()

    def _signalled(self) -> None:
        for number in self._signals.take():
            if number == signal.SIGCHLD:
                self._tasks.reap()
            elif number == signal.SIGHUP:
                self._policy.forget()
                self._policy.get()
            else:
                self._stop()

    def _stop(self) -> None:
        """Begin nothing new, and end when what was begun is done."""
        self._stopping = True
        self._tasks.hurry(self._when_collected())

    # ---- the connection ----------------------------------------------------------------

    def _try_to_connect(self) -> None:
        if self._connection is not None or self._stopping or monotonic() < self._connect_at:
            return
        try:
            sock = self._connect()
        except OSError as error:
            self._say(INFO, f"no engine answers ({error.strerror}); trying again")
            self._later()
            return
        connection: Connection | None = None
        try:
            connection = Connection(sock)
            self._be_the_one(connection)
        except HookError as error:
            self._say(ERROR, str(error))
            (connection or sock).close()
            self._later()
            return
        self._connection = connection
        connection.session.register(*self._who)
        self._selector.register(connection.sock, selectors.EVENT_READ)

    def _be_the_one(self, connection: Connection) -> None:
        """Take the lock that one plugin of the host has.  Raises HookError."""
        with EngineHalf(connection.engine) as half:
            lock = half.lock()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HookError(
                MOUNT_FAILED, "another plugin serves this host; waiting until it has ended"
            ) from None

    def _later(self) -> None:
        """Connect after a pause, which is longer each time."""
        if not self._again:
            self._stop()
        self._connect_at = monotonic() + self._pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _hang_up(self, why: str) -> None:
        """End the connection, and all that was done for it but taking mounts away."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._say(INFO, f"the connection has ended: {why}")
        self._selector.unregister(connection.sock)
        self._tasks.end_all(connection)
        self._told.clear()
        connection.close()
        self._later()

    def _speaks(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            calls = connection.read()
            if calls is None:
                self._hang_up("the engine has closed it")
                return
            for call in calls:
                self._handle(connection, call)
        except OutOfStepError as error:
            self._hang_up(f"the engine has sent {error}")
        except RefusedError as error:
            self._hang_up(f"the engine says {quote(str(error))}")

    def _flush(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            waits = connection.write()
        except OSError as error:
            self._hang_up(str(error.strerror))
            return
        if waits and len(connection.session.out) > _UNREAD:
            self._hang_up("the engine reads no answers")
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waits else 0)
        if self._selector.get_key(connection.sock).events != events:
            self._selector.modify(connection.sock, events)

    # ---- calls -------------------------------------------------------------------------

    def _handle(self, connection: Connection, call: Call) -> None:
        """Answer the `call`, at once or later; whatever happens, there is an answer."""
        session = connection.session
        try:
            answer = self._answer(connection, call)
        except MalformedError as error:
            session.fail(call.number, f"the request {error}")
        except HookError as error:
            session.fail(call.number, worker.sentence(error).decode())
        except Exception as error:  # noqa: BLE001  Without an answer the engine goes on without us.
            self._say(ERROR, bug(error))
            session.fail(call.number, f"the plugin has a bug (exit code {BUG})")
        else:
            if answer is not None:
                session.answer(call.number, answer)

    def _answer(self, connection: Connection, call: Call) -> bytes | None:
        """The answer to `call`, or None if it comes later."""
        if call.method == messages.CREATE:
            return self._create(connection, call)
        if call.method in (messages.START, messages.STOP, messages.REMOVE, messages.STATE_CHANGE):
            self._happened(connection, call)
        elif call.method == messages.CONFIGURE:
            return self._configure(messages.read_configure(call.payload))
        elif call.method == messages.SYNCHRONIZE:
            return self._synchronize(connection, call)
        elif call.method != messages.SHUTDOWN:
            connection.session.fail(call.number, "not implemented", ttrpc.UNIMPLEMENTED)
            return None
        return b""

    def _configure(self, said: Configuration) -> bytes:
        self._runtime = said.runtime
        self._patience = min(_PART * (said.timeout or _ENGINES_DEADLINE), _DEADLINE)
        return messages.configured()

    def _synchronize(self, connection: Connection, call: Call) -> bytes | None:
        found, more = messages.read_synchronize(call.payload)
        self._told += found
        if more:
            return messages.synchronized(more=True)
        told, self._told = self._told, []
        parent = os.getpid()
        # The engine creates nothing before this is answered.  So whoever collects knows the mounts
        # of before from those of after.
        task = Task(BEGINS, connection, call.number, "", monotonic() + self._patience)
        self._tasks.start(task, lambda sock: worker.sweep(sock, connection.engine, told, parent))
        return None

    def _create(self, connection: Connection, call: Call) -> bytes | None:
        if not messages.asks(call.payload):
            return b""
        identity = messages.read_id(call.payload)
        common = worker.Situation(
            engine=connection.engine, runtime=self._runtime, policy=self._policy.get()
        )
        parent = os.getpid()
        task = Task(CREATES, connection, call.number, identity, monotonic() + self._patience)
        self._tasks.start(task, lambda sock: worker.serve(sock, call.payload, common, parent))
        return None

    def _happened(self, connection: Connection, call: Call) -> None:
        """A container has its mount by now, or needs it no more."""
        if not messages.concerns(call.method, call.payload, self._mounted):
            return
        event, identity = messages.read_event(call.method, call.payload)
        if event and identity in self._mounted:
            self._collect(connection, identity)
        elif event == messages.START:
            started = messages.read_started(call.method, call.payload)
            if started is not None:
                worker.has_its_mount(started)

    def _collect(self, connection: Connection, identity: str) -> None:
        """Take away the mount for the container `identity`, if there is one.

        If that fails, the container's next event is another occasion.
        """
        self._mounted.add(identity)
        parent = os.getpid()
        task = Task(COLLECTS, connection, -1, identity, self._when_collected())
        self._tasks.start(
            task, lambda sock: worker.collect(sock, connection.engine, identity, parent)
        )

    def _when_collected(self) -> float:
        """When taking mounts away that begins now has to be done."""
        return monotonic() + (_STOPPING if self._stopping else worker.COLLECTING)

    # ---- processes ---------------------------------------------------------------------

    def _answered(self, task: Task) -> None:
        """The process of `task` has said something, or has ended."""
        message = task.hear()
        if message is None:
            return
        kind, rest = message[:1], message[1:]
        if kind == worker.LEFT:
            self._mounted.add(rest.decode("utf-8", "surrogateescape"))
        elif kind == worker.COLLECTED:
            self._mounted.discard(task.identity)
        elif kind == worker.LISTED:
            self._begun(task)
        elif not message and not task.waits:
            self._tasks.end(task)
        elif kind in (worker.GRANTED, worker.EMPTY):
            if kind == worker.GRANTED:
                self._mounted.add(task.identity)
            task.connection.session.answer(task.number, rest)
            self._tasks.end(task)
        elif kind == worker.REFUSED:
            task.connection.session.fail(task.number, rest.decode())
            self._tasks.end(task)
        else:
            self._fail(task, "the process that delegates has died; the host's log may say why")

    def _begun(self, task: Task) -> None:
        """The session begins: the mounts of before are known, and can be told from new ones."""
        task.connection.session.answer(task.number, messages.synchronized(more=False))
        task.waits = False
        task.deadline = self._when_collected()
        self._pause = FIRST_PAUSE
        self._say(INFO, f"registered with {quote(self._runtime)}")
        notify("READY=1")

    def _expire(self) -> None:
        for task in self._tasks.late():
            self._fail(task, f"delegating took more than {self._patience:.1f} seconds")

    def _fail(self, task: Task, why: str) -> None:
        """End the process of `task`, refuse what it was for, and take back what it has done."""
        self._tasks.end(task)
        if task.kind == BEGINS and task.waits:
            # Then only the next session collects what is left.
            self._begun(task)
        elif task.kind == CREATES:
            error = HookError(MOUNT_FAILED, why)
            self._say(ERROR, f"{quote(task.identity)}: {error}")
            task.connection.session.fail(task.number, worker.sentence(error).decode())
            self._collect(task.connection, task.identity)
