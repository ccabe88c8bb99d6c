"""ttRPC, by which an engine and its plugin call each other: requests and responses on a stream.

Each message has a header with its length, the call's number, and its type.  A response has the
number of its request.  Streaming calls exist in ttRPC but not in NRI.
"""

from _struct import Struct

from ...values import Value
from .protobuf import Message, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = 1
RESPONSE = 2
# Codes of a response's status, which are those of gRPC.
UNKNOWN = 2
UNIMPLEMENTED = 12
_HEADER = Struct(">IIBB")
# The most bytes of a message (ttrpc: channel.go, messageLengthMax).
LONGEST = 4 << 20


class Packet(Value):
    """A message: its type, the number of its call, and its data, or None if it was too long."""

    __slots__ = ("call", "data", "kind")
    kind: int
    call: int
    data: bytes | None


class Request(Value):
    """A call of `method`, whose argument is the message `payload`."""

    __slots__ = ("method", "payload", "service")
    service: str
    method: str
    payload: bytes


class Response(Value):
    """An answer: `message` says what is wrong if the `code` isn't 0."""

    __slots__ = ("code", "message", "payload")
    code: int
    message: str
    payload: bytes


class Packets:
    """Takes a stream of messages apart, wherever it is cut, and keeps at most one of LONGEST."""

    def __init__(self) -> None:
        self._kept = bytearray()
        # How many bytes of a message that is too long are still to come.
        self._skip = 0

    def feed(self, data: bytes | memoryview) -> "Iterator[Packet]":
        """The messages that are complete with the next bytes, `data`."""
        rest = memoryview(data)
        while rest:
            if self._skip:
                passed, rest = rest[: self._skip], rest[self._skip :]
                self._skip -= len(passed)
                continue
            wanted = self._wanted()
            self._kept += rest[:wanted]
            rest = rest[wanted:]
            if len(self._kept) < _HEADER.size or (self._wanted() and not self._is_too_long()):
                continue
            size, call, kind, _ = _HEADER.unpack_from(self._kept)
            if size > LONGEST:
                # It is passed over, so that the call still gets an answer.
                self._skip = size
            whole = None if size > LONGEST else bytes(self._kept[_HEADER.size :])
            self._kept.clear()
            yield Packet(kind=kind, call=call, data=whole)

    def _wanted(self) -> int:
        """How many bytes are still to come of the header, or else of the message."""
        kept = len(self._kept)
        return (_HEADER.size if kept < _HEADER.size else _HEADER.size + self._size()) - kept

    def _size(self) -> int:
        return int.from_bytes(self._kept[:4], "big")

    def _is_too_long(self) -> bool:
        return self._size() > LONGEST


def read_request(data: bytes) -> Request:
    """The request in a message's `data`.  Raises MalformedError."""
    message = Message(data)
    # 4 is a time limit, which we have from Configure, and 5 is metadata.
    return Request(service=message.text(1), method=message.text(2), payload=message.data(3))


def read_response(data: bytes) -> Response:
    """The response in a message's `data`.  Raises MalformedError."""
    message = Message(data)
    status = message.message(1)
    return Response(code=status.number(1), message=status.text(2), payload=message.data(2))


def request(call: int, service: str, method: str, payload: bytes) -> bytes:
    """The message that calls `method` of `service`, with the odd number `call`."""
    return _packet(REQUEST, call, encode({1: service, 2: method, 3: payload}))


def response(call: int, payload: bytes) -> bytes:
    """The message that answers the call with the number `call`."""
    return _packet(RESPONSE, call, encode({2: payload}))


def failure(call: int, message: str, code: int = UNKNOWN) -> bytes:
    """The message that says why the call with the number `call` has failed."""
    return _packet(RESPONSE, call, encode({1: encode({1: code, 2: message})}))


def _packet(kind: int, call: int, data: bytes) -> bytes:
    return _HEADER.pack(len(data), call, kind, 0) + data
