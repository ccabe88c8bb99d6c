"""The hook's side of the broker: sends a request, and gets a detached mount or a refusal.

A hook uses the broker if it has no privilege on the host, because a rootless engine runs it or
because it already is in the container.  The container half makes the connection, since the broker
looks at the process that has connected.
"""

import posix
from _socket import (
    AF_UNIX,
    SO_SNDTIMEO,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)
from _struct import Struct

from ..delegation.masks import Grant
from ..errors import BAD_ANNOTATION, HookError
from ..mount import container_half
from ..mount.failure import busy_broker, no_broker, odd_broker
from ..mount.host_half import ASKING, HostHalf
from ..paths import SOCKET
from ..text.strict_json import json_object, load_json
from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..bpf.names import Enum
    from ..container.namespaces import Container
    from ..delegation.annotations import Request


# A struct timeval.
_TIME = Struct("@ll")


def grant(
    request: "Request",
    ask: wire.Ask,
    container: "Container",
    root: str,
    enums: "Mapping[str, Enum]",
    *,
    broker: str = SOCKET,
    only_ask: bool = False,
) -> None:
    """Mount what the broker gives into `container`, whose root filesystem is at `root`.

    `ask` is the message for the `request`; `enums` are the kernel's names.  With `only_ask` nothing
    is mounted.  Raises HookError, with everything undone.
    """
    with HostHalf(container, root, broker) as half:
        connection = half.aim(request.path, request.mode)
        if connection < 0:
            # If the hook of another stage has already delegated, no broker is needed.
            if half.has_any():
                return
            raise half.failure()
        with _Broker(connection, half.seconds) as asked:
            decision = asked.ask(ask)
            wanted = Grant(masks=decision.masks, path=request.path, mode=request.mode)
            if only_ask or not decision.masks or half.has(wanted, enums):
                return
            mount = asked.mount()
            try:
                half.attach(wanted, enums, mount)
            finally:
                posix.close(mount)
            half.keep()


def decision(ask: wire.Ask, *, broker: str = SOCKET) -> wire.Granted:
    """What the broker would give this process for `ask`; nothing is mounted.  Raises HookError."""
    try:
        sock = connect(broker, ASKING)
    except (BlockingIOError, TimeoutError):  # Its queue is full.
        raise busy_broker(ASKING) from None
    except OSError as error:
        raise no_broker(f"connect: {error.strerror}") from None
    try:
        with _Broker(sock.fileno(), ASKING) as asked:
            return asked.ask(ask)
    finally:
        sock.close()


def connect(broker: str, seconds: int) -> socket:
    """A connection to the broker at that path, with a timeout of `seconds`.  Raises OSError."""
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        # The socket blocks, because a non-blocking connect(2) fails with EAGAIN at once if the
        # broker's queue is full, while a blocking one waits for room.
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _TIME.pack(seconds, 0))
        sock.connect(broker)
        sock.settimeout(seconds)
    except BaseException:
        sock.close()
        raise
    return sock


class _Broker:
    """The connection with the fd `connection`, which its owner closes; to be used in a `with`."""

    def __init__(self, connection: int, seconds: float) -> None:
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET, 0, connection)
        self._seconds = seconds
        self._socket.settimeout(seconds)

    def __enter__(self) -> "_Broker":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.detach()

    def ask(self, ask: wire.Ask) -> wire.Granted:
        """The broker's decision about `ask`.  Raises HookError."""
        answer, _ = self._exchange(wire.ask(ask))
        return wire.read_granted(answer)

    def mount(self) -> int:
        """An fd on the mount that was granted; the caller closes it.  Raises HookError."""
        answer, fd = self._exchange(wire.go_on())
        try:
            wire.read_mounted(answer)
        except HookError:
            if fd >= 0:
                posix.close(fd)
            raise
        if fd < 0:
            raise odd_broker("it sent no mount")
        return fd

    def _exchange(self, message: "dict[str, object]") -> tuple[object, int]:
        data = json_object(message).encode()
        if len(data) > wire.LONGEST:
            raise HookError(
                BAD_ANNOTATION,
                f"the request is {len(data)} bytes long and the broker takes at most "
                f"{wire.LONGEST}; name fewer items, or a profile",
            )
        try:
            answer, fd = self._send(data)
        except (BlockingIOError, TimeoutError):
            raise busy_broker(self._seconds) from None
        except OSError as error:
            raise odd_broker(error.strerror or "no reason") from None
        if not answer:
            raise odd_broker("it closed the connection, as it does if a user asks far too often")
        try:
            return load_json(answer, unique=True), fd
        except ValueError as error:
            raise odd_broker(f"its answer isn't JSON: {error}") from None

    def _send(self, data: bytes) -> tuple[bytes, int]:
        """Send `data`; returns the answer, and the fd that came with it or -1.  Raises OSError."""
        try:
            self._socket.send(data)
        except BrokenPipeError:
            pass  # The broker has hung up; its last message, which is read next, says why.
        try:
            return container_half.receive(self._socket, wire.LONGEST)
        except ConnectionResetError:
            # It hung up without reading our message.  The kernel reports that once, and then gives
            # the broker's last message.
            return container_half.receive(self._socket, wire.LONGEST)
