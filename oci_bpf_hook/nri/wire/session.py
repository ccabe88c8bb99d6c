"""One connection to an engine: the bytes that come in, the calls in them, and the bytes to send.

Nothing here reads, writes or waits.  What doesn't belong into a session, such as an answer to a
call that nobody has made, is passed over; only bytes that aren't frames at all end it.
"""

from ...values import Value
from . import messages, mux, ttrpc
from .mux import Demultiplexer, OutOfStepError
from .protobuf import MalformedError
from .ttrpc import Packet, Packets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_REGISTRATION = 1


class Call(Value):
    """A call of the engine's: `number` is for its answer."""

    __slots__ = ("method", "number", "payload")
    number: int
    method: str
    payload: bytes


class RefusedError(Exception):
    """The engine doesn't register the plugin; the text is its reason."""


class Session:
    """A session that has just begun; `out` has the bytes that are to be sent next."""

    def __init__(self) -> None:
        self.out = bytearray()
        self._frames = Demultiplexer()
        self._calls = Packets()
        self._answers = Packets()

    def register(self, name: str, index: str) -> None:
        """Say who we are.  Whoever doesn't within some seconds is thrown out."""
        self.out += mux.frames(mux.RUNTIME, messages.register(_REGISTRATION, name, index))

    def answer(self, number: int, payload: bytes) -> None:
        """Answer the call with this `number`."""
        self.out += mux.frames(mux.PLUGIN, ttrpc.response(number, payload))

    def fail(self, number: int, message: str, code: int = ttrpc.UNKNOWN) -> None:
        """Answer the call with this `number` with an error."""
        self.out += mux.frames(mux.PLUGIN, ttrpc.failure(number, message, code))

    def feed(self, data: bytes) -> "Iterator[Call]":
        """The calls that are complete with the next bytes, `data`.

        Raises OutOfStepError, and RefusedError if the engine doesn't want us.
        """
        for stream, piece in self._frames.feed(data):
            if stream == mux.PLUGIN:
                for packet in self._calls.feed(piece):
                    call = self._call(packet)
                    if call is not None:
                        yield call
            elif stream == mux.RUNTIME:
                for packet in self._answers.feed(piece):
                    self._registered(packet)

    def _call(self, packet: Packet) -> Call | None:
        if packet.kind != ttrpc.REQUEST:
            return None
        if packet.data is None:
            self.fail(packet.call, f"the request has more than {ttrpc.LONGEST} bytes")
            return None
        try:
            request = ttrpc.read_request(packet.data)
        except MalformedError as error:
            self.fail(packet.call, f"the request {error}")
            return None
        if request.service != messages.PLUGIN_SERVICE:
            self.fail(packet.call, "there is no such service here", ttrpc.UNIMPLEMENTED)
            return None
        return Call(number=packet.call, method=request.method, payload=request.payload)

    def _registered(self, packet: Packet) -> None:
        if packet.kind != ttrpc.RESPONSE or packet.call != _REGISTRATION:
            return
        try:
            answer = ttrpc.read_response(packet.data or b"")
        except MalformedError as error:
            raise OutOfStepError(f"an answer that {error}") from None
        if answer.code:
            raise RefusedError(answer.message)
