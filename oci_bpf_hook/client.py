"""The hook's side of the broker: a request goes out, a detached mount comes back.

The hook has no privilege on the host here: it is in the container already, or beside a rootless
engine.  The connection is the container half's own, since the broker looks at who has made it.
"""

import posix
from _socket import (
    AF_UNIX,
    CMSG_LEN,
    MSG_CMSG_CLOEXEC,
    SCM_RIGHTS,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)

from . import inside, wire
from .audit import json_object
from .errors import BAD_ANNOTATION, NO_BROKER, HookError
from .half import no_broker
from .masks import Grant
from .mount import ContainerHalf
from .state import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .annotations import Request
    from .container import Container
    from .names import Enum


SOCKET = "/run/oci-bpf-hook/broker.sock"


def grant(
    request: "Request",
    ask: wire.Ask,
    container: "Container",
    root: str,
    enums: "Mapping[str, Enum]",
    *,
    broker: str = SOCKET,
) -> None:
    """Mount into `container`, with its root filesystem at `root`, what the broker gives.

    `ask` is what it is told of the `request`; `enums` are the kernel's names.  Raises HookError,
    with nothing left behind.
    """
    with ContainerHalf(container, root, broker) as half:
        connection = half.aim(request.path, request.mode)
        if connection < 0:
            # The hook's other stage has done it where there needs to be no broker.
            if half.has_any():
                return
            raise half.failure()
        with _Broker(connection, half.seconds) as asked:
            decision = asked.ask(ask)
            wanted = Grant(masks=decision.masks, path=request.path, mode=request.mode)
            if not decision.masks or half.has(wanted, enums):
                return
            mount = asked.mount()
            try:
                half.attach(wanted, enums, mount)
            finally:
                posix.close(mount)
            half.keep()


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
        answer, fds = self._exchange(wire.go_on())
        try:
            wire.read_mounted(answer)
            if len(fds) != 1:
                raise HookError(NO_BROKER, f"the broker sent {len(fds)} fds and not the mount")
        except HookError:
            for fd in fds:
                posix.close(fd)
            raise
        return fds[0]

    def _exchange(self, message: "dict[str, object]") -> tuple[object, list[int]]:
        data = json_object(message).encode()
        if len(data) > wire.LONGEST:
            raise HookError(
                BAD_ANNOTATION,
                f"the request is {len(data)} bytes long and the broker takes {wire.LONGEST}; name "
                "fewer items, or a profile",
            )
        try:
            answer, ancillary = self._send(data)
        except OSError as error:  # Among them TimeoutError.
            raise no_broker(error.strerror or "it is too slow") from None
        fds = [
            fd
            for level, kind, held in ancillary
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)
            for (fd,) in inside.FD.iter_unpack(held[: len(held) - len(held) % inside.FD.size])
        ]
        if not answer:
            raise no_broker("it hung up")
        try:
            return load_json(answer, unique=True), fds
        except ValueError as error:
            for fd in fds:
                posix.close(fd)
            raise no_broker(f"its answer is no JSON: {error}") from None

    def _send(self, data: bytes) -> "tuple[bytes, list[tuple[int, int, bytes]]]":
        """Send `data`; the answer, and what came beside it.  Raises OSError."""
        try:
            self._socket.send(data)
        except BrokenPipeError:
            pass  # It has hung up, and said why before.
        for _ in range(2):
            try:
                answer, ancillary, _, _ = self._socket.recvmsg(
                    wire.LONGEST, CMSG_LEN(inside.FD.size), MSG_CMSG_CLOEXEC
                )
                return answer, ancillary
            except ConnectionResetError:
                # It hung up without reading ours, which the kernel tells before its last words.
                continue
        return b"", []
