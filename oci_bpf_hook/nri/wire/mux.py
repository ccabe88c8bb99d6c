"""The connection between an engine and its plugin, which carries a stream for each of two services.

It consists of frames: the number of a stream, a length, and so many bytes of that stream.  On the
stream PLUGIN the engine calls us, and on the stream RUNTIME we call the engine.  A frame ends
anywhere in what it carries, and a read from the socket ends anywhere in a frame.
"""

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN = 1
RUNTIME = 2
_HEADER = Struct(">II")
# Go's side reads through a buffer of this size, and a longer frame is an error there (NRI:
# pkg/net/multiplex/mux.go).
LONGEST = 4096
# No engine sends longer frames; NRI 0.6 allows 16 MiB, and later releases less.
_MOST = (16 << 20) + 4096


class OutOfStepError(ValueError):
    """The other side doesn't send frames, or we have lost our place in them."""


def frames(stream: int, data: bytes) -> bytes:
    """The frames that carry the `data` on the `stream`."""
    pieces = (data[at : at + LONGEST] for at in range(0, len(data), LONGEST))
    return b"".join(_HEADER.pack(stream, len(piece)) + piece for piece in pieces)


class Demultiplexer:
    """Takes frames apart, wherever they are cut.  It keeps no more than a part of a header."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._stream = 0
        # How many bytes of the present frame are still to come.
        self._left = 0

    def feed(self, data: bytes) -> "Iterator[tuple[int, memoryview]]":
        """The pieces that the next bytes, `data`, carry, each with its stream.

        Raises OutOfStepError.
        """
        rest = memoryview(data)
        while rest:
            if not self._left:
                wanted = _HEADER.size - len(self._header)
                self._header += rest[:wanted]
                rest = rest[wanted:]
                if len(self._header) < _HEADER.size:
                    return
                self._stream, self._left = _HEADER.unpack(self._header)
                self._header.clear()
                if self._left > _MOST:
                    raise OutOfStepError(f"a frame of {self._left} bytes")
                continue
            piece, rest = rest[: self._left], rest[self._left :]
            self._left -= len(piece)
            yield self._stream, piece
