"""The plugin's connection to its engine: how it is made, read, written, and made again.

If the engine ends the connection, the plugin connects again after a pause, which grows while nobody
answers.  The plugin never gives up on an answer: an engine registers one plugin after the other, so
whoever connects anew only makes the others wait for longer.
"""

import os
import socket
from collections.abc import Iterable
from contextlib import suppress

from ..errors import NO_BROKER, HookError, Problem
from .engine import Engine
from .wire.session import Call, Session

# Where an engine listens by default.
SOCKET = "/var/run/nri/nri.sock"
# The fd of a plugin that the engine itself has started, and how the plugin is to register.
_LAUNCHED = "NRI_PLUGIN_SOCKET"
_NAME, _INDEX = "NRI_PLUGIN_NAME", "NRI_PLUGIN_IDX"
# The most bytes that are read at once.
_READ = 1 << 16
# Seconds between two attempts to connect, at first and at most.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0


def launched() -> tuple[int, str, str] | None:
    """The fd, the name and the index, if an engine has started this process as a plugin.

    Raises HookError (NO_BROKER) if only a part of that is there.
    """
    found = [os.environ.pop(name, "") for name in (_LAUNCHED, _NAME, _INDEX)]
    if not any(found):
        return None
    number, name, index = found
    if not number.isdecimal() or not name or not is_index(index):
        problem = Problem(
            f"{_LAUNCHED}, {_NAME} and {_INDEX} aren't what an engine sets", key=_LAUNCHED
        )
        raise HookError(NO_BROKER, problem)
    return int(number), name, index


def is_index(text: str) -> bool:
    """Whether it says whose turn a plugin has: two digits."""
    return len(text) == 2 and text.isascii() and text.isdecimal()


class Connection:
    """The connection by `sock`, which it owns, to an engine that is root's on this host."""

    def __init__(self, sock: socket.socket) -> None:
        """Raises HookError if nobody of that kind is at the other end."""
        self.sock = sock
        self.session = Session()
        self.engine = Engine(sock)
        sock.setblocking(False)

    def close(self) -> None:
        """Give all fds back."""
        self.sock.close()
        self.engine.close()

    def read(self) -> "Iterable[Call] | None":
        """The calls that have come, or None at the end.

        Raises OutOfStepError, RefusedError.
        """
        try:
            data = self.sock.recv(_READ)
        except BlockingIOError:
            return ()
        except OSError:
            return None
        return self.session.feed(data) if data else None

    def write(self) -> bool:
        """Send what there is to send; returns whether some of it has to wait."""
        out = self.session.out
        with suppress(BlockingIOError):
            while out:
                del out[: self.sock.send(out)]
        return bool(out)


def connect(path: str) -> socket.socket:
    """A connection to the socket at `path`.  Raises OSError at once if nobody takes it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # An engine that takes nobody at the moment lets a blocking connect(2) wait.
        sock.setblocking(False)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock
