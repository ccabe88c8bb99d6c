"""Serves the notifications of a program: looks at a call, lets it go on, learns its result."""

import os
import resource
import select
from collections.abc import Callable
from errno import EMFILE

from ..call import Call
from . import notify
from .breakpoint import Breakpoint

# No machine has more threads than this.
_MOST = 1 << 20


class Supervisor:
    """Serves the listeners that are added, and passes each call to `note` once it has returned.

    A thread's calls are passed in their order.  `blind` says why results can't be had, if they
    can't.  Until this is closed the soft limit of fds is raised to the hard one: fork only before
    or after.
    """

    def __init__(self, note: Callable[[Call], None]) -> None:
        self._note = note
        self._looks = True
        self._poll = select.poll()
        self._listeners: set[int] = set()
        self._waiting: dict[int, tuple[Call, Breakpoint | None]] = {}
        self._threads: dict[int, int] = {}
        self._others: dict[int, Callable[[], None]] = {}
        self.blind = ""
        # A call that hasn't returned takes two fds; half of our limit is kept for everything else.
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        _, hard = self._limits
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._most = hard // 4 if hard != resource.RLIM_INFINITY else _MOST

    def add(self, listener: int) -> None:
        """Serve the notifications that come from the fd `listener`, and close it at their end."""
        self._listeners.add(listener)
        self._poll.register(listener, select.POLLIN)

    def on(self, fd: int, act: Callable[[], None]) -> None:
        """Call `act` whenever there is something to read from `fd`."""
        self._others[fd] = act
        self._poll.register(fd, select.POLLIN)

    def serve(self, *ends: int) -> int | None:
        """Serve until there is something to read from one of the fds `ends`, and return that one.

        Returns None if nobody is left to serve.
        """
        for fd in ends:
            self._poll.register(fd, select.POLLIN)
        try:
            while self._listeners or ends:
                ready = self._poll.poll()
                # First those whose fds get closed, so that no fd below has a reused number.
                for fd, _ in ready:
                    if fd in self._threads:
                        self._finish(self._threads[fd])
                for fd, events in ready:
                    if fd in self._listeners:
                        self._serve(fd, events)
                    elif fd in self._others:
                        self._others[fd]()
                ended = [fd for fd, _ in ready if fd in ends]
                if ended:
                    return ended[0]
            return None
        finally:
            for fd in ends:
                self._poll.unregister(fd)

    def idle(self) -> bool:
        """Whether nobody is left to serve."""
        for fd, events in self._poll.poll(0):
            if fd in self._listeners and not events & select.POLLIN:
                self._drop(fd)
        return not self._listeners

    def look_away(self) -> list[int]:
        """From here on let every call go unseen; returns the fds that this takes."""
        for tid in list(self._waiting):
            self._finish(tid)
        self._looks = False
        return sorted(self._listeners)

    def close(self) -> None:
        """Note what has returned so far, and close the fds: from then on calls get ENOSYS."""
        for tid in list(self._waiting):
            self._finish(tid)
        for fd in list(self._listeners):
            self._drop(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)

    def _serve(self, listener: int, events: int) -> None:
        if not events & select.POLLIN:
            # No process has the filter any more.
            self._drop(listener)
            return
        one = notify.receive(listener)
        if one is None:
            return
        if not self._looks:
            notify.let_go(listener, one)
            return
        # Its thread makes another call, so the one before has returned.
        self._finish(one.tid)
        try:
            call = notify.read(listener, one)
            if call is not None:
                self._expect(one, call)
        except PermissionError as error:
            self.blind = self.blind or f"the program's memory: {error.strerror}"
        finally:
            made = notify.let_go(listener, one)
        if not made:
            self._finish(one.tid, made=False)

    def _expect(self, one: notify.Notification, call: Call) -> None:
        there: Breakpoint | None = None
        try:
            if len(self._threads) >= self._most:
                raise OSError(EMFILE, os.strerror(EMFILE))
            there = Breakpoint(one.tid, one.arch, one.after)
        except OSError as error:
            # ESRCH: it was killed while it waited.
            self.blind = self.blind or (error.strerror or str(error))
        self._waiting[one.tid] = call, there
        if there is not None:
            self._threads[there.fd] = one.tid
            self._poll.register(there.fd, select.POLLIN)

    def _finish(self, tid: int, *, made: bool = True) -> None:
        """The thread `tid` has returned from its call, if that was made, or has gone."""
        call, there = self._waiting.pop(tid, (None, None))
        result = None
        if there is not None:
            result = there.result()
            del self._threads[there.fd]
            self._poll.unregister(there.fd)
            there.close()
        if call is not None and made:
            self._note(call.ended(result))

    def _drop(self, listener: int) -> None:
        self._listeners.remove(listener)
        self._poll.unregister(listener)
        os.close(listener)
