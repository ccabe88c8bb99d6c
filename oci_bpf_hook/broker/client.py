"""The hook's side of the broker: a request goes out, a detached mount comes back.

The hook has no privilege on the host here: it is in the container already, or beside a rootless
engine.  The connection is the container half's own, since the broker looks at who has made it.
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
from ..mount.failure import no_broker
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
    """Mount into `container`, with its root filesystem at `root`, what the broker gives.

    `ask` is what it is told of the `request`; `enums` are the kernel's names.  With `only_ask`
    nothing is mounted.  Raises HookError, with nothing left behind.
    """
    with HostHalf(container, root, broker) as half:
        connection = half.aim(request.path, request.mode)
        if connection < 0:
            # The hook's other stage has done it where there needs to be no broker.
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
    """What the broker would give, by whoever this process is; nothing is made of it.

    Raises HookError.
    """
    try:
        sock = connect(broker, ASKING)
    except OSError as error:
        raise no_broker(f"connect: {error.strerror}") from None
    try:
        with _Broker(sock.fileno(), ASKING) as asked:
            return asked.ask(ask)
    finally:
        sock.close()


def connect(broker: str, seconds: int) -> socket:
    """A connection to the broker at that path, which may take so many seconds.  Raises OSError."""
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    try:
        # While as many wait to be accepted as the kernel keeps, a socket that doesn't block gets
        # EAGAIN at once, and has no place among those that wait.
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _TIME.pack(seconds, 0))
        sock.connect(broker)
        sock.settimeout(seconds)
    except BaseException:
        sock.close()
        raise
    return sock


class _Broker:
    """The connection with the fd `connection`, which stays its owner's; to be used in a `with`."""

    def __init__(self, connection: int, seconds: float) -> None:
        self._socket = socket(AF_UNIX, SOCK_SEQPACKET, 0, connection)
        self._socket.settimeout(seconds)

    def __enter__(self) -> "_Broker":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.detach()

    def ask(self, ask: wire.Ask) -> wire.Granted:
        """What the broker decides.  Raises HookError."""
        answer, _ = self._exchange(wire.ask(ask))
        return wire.read_granted(answer)

    def mount(self) -> int:
        """The mount that was decided, for the caller to close.  Raises HookError."""
        answer, fd = self._exchange(wire.go_on())
        try:
            wire.read_mounted(answer)
        except HookError:
            if fd >= 0:
                posix.close(fd)
            raise
        if fd < 0:
            raise no_broker("it sent no mount")
        return fd

    def _exchange(self, message: "dict[str, object]") -> tuple[object, int]:
        data = json_object(message).encode()
        if len(data) > wire.LONGEST:
            raise HookError(
                BAD_ANNOTATION,
                f"the request is {len(data)} bytes long and the broker takes {wire.LONGEST}; name "
                "fewer items, or a profile",
            )
        try:
            answer, fd = self._send(data)
        except OSError as error:  # Among them TimeoutError.
            raise no_broker(error.strerror or "it is too slow") from None
        if not answer:
            raise no_broker("it hung up, as it does on whoever asks far too often")
        try:
            return load_json(answer, unique=True), fd
        except ValueError as error:
            raise no_broker(f"its answer is no JSON: {error}") from None

    def _send(self, data: bytes) -> tuple[bytes, int]:
        """Send `data`; the answer, and the fd beside it or -1.  Raises OSError."""
        try:
            self._socket.send(data)
        except BrokenPipeError:
            pass  # It has hung up, and said why before.
        try:
            return container_half.receive(self._socket, wire.LONGEST)
        except ConnectionResetError:
            # It hung up without reading ours, which the kernel tells before its last words.
            return container_half.receive(self._socket, wire.LONGEST)
