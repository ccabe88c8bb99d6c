"""The signals by which a service learns to stop, to read its policy again, or of a child's end."""

import signal
import socket
from collections.abc import Iterator

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """The signals that have come to this process; a selector finds it readable when one comes."""

    def __init__(self) -> None:
        self._come: set[int] = set()
        self._wakeup, self._ours = socket.socketpair()
        for end in (self._wakeup, self._ours):
            end.setblocking(False)
        # The byte only wakes us; _come has what happened, so a full pipe loses nothing.
        signal.set_wakeup_fd(self._ours.fileno(), warn_on_full_buffer=False)
        for number in _NUMBERS:
            signal.signal(number, lambda number, _: self._come.add(number))
        # A process inherits its signal mask, and the parent may have blocked these.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)

    def __bool__(self) -> bool:
        """Whether one has come that wasn't taken yet."""
        return bool(self._come)

    def fileno(self) -> int:
        """What becomes readable when one comes."""
        return self._wakeup.fileno()

    def awake(self) -> None:
        """Take what made it readable."""
        self._wakeup.recv(4096)

    def take(self) -> Iterator[int]:
        """Each that has come, which is cleared before it is handled."""
        while self._come:
            yield self._come.pop()
