"""A system's log of our own, which a hook that is run behind `prefix` finds at /dev/log.

The socket is in a directory that is bound over /dev in a mount namespace of the hook's
own; the host's /dev is untouched.
"""

import socket
import tempfile
from types import TracebackType
from typing import NamedTuple

_BIND = 'mount --bind "$0" /dev && exec "$@"'


class Line(NamedTuple):
    """One message: RFC 3164's priority, what stands behind the time, and the text."""

    priority: int
    tag: str
    text: str


class DevLog:
    """To be used in a `with`; `prefix` is a command to run the hook behind."""

    def __init__(self, *, listens: bool = True) -> None:
        """Without `listens` there is no socket in its /dev."""
        self._directory = tempfile.TemporaryDirectory(prefix="dev-", dir="/tmp")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path = f"{self._directory.name}/log"
        if listens:
            self._socket.bind(self.path)
        self.prefix = ("unshare", "-m", "--", "sh", "-c", _BIND, self._directory.name)

    def __enter__(self) -> "DevLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self._directory.cleanup()

    def fill(self) -> None:
        """Send until nothing more fits, as where a daemon has stopped reading."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(self.path)
            try:
                while True:
                    sender.send(b"<30>", socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass

    def stop(self) -> None:
        """Leave the socket where it is, with nobody behind it."""
        self._socket.close()

    def messages(self) -> list[bytes]:
        """What has come since the last time."""
        found: list[bytes] = []
        while True:
            try:
                found.append(self._socket.recv(1 << 20, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return found

    def lines(self) -> list[Line]:
        """The same, taken apart."""
        found: list[Line] = []
        for message in self.messages():
            assert b"\n" not in message
            priority, _, rest = message.decode().partition(">")
            # The time is fifteen characters, and a blank.
            tag, _, text = rest[16:].partition(": ")
            found.append(Line(int(priority[1:]), tag, text))
        return found
