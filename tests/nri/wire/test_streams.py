"""Frames and calls, cut anywhere, too long, and wrong: nothing is lost, and little is kept."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.nri.wire import mux, ttrpc
from oci_bpf_hook.nri.wire.mux import Demultiplexer, OutOfStepError
from oci_bpf_hook.nri.wire.protobuf import MalformedError
from oci_bpf_hook.nri.wire.ttrpc import Packets

payloads = st.lists(
    st.tuples(st.sampled_from([mux.PLUGIN, mux.RUNTIME, 0, 77]), st.binary(max_size=9000)),
    max_size=6,
)
calls = st.lists(
    st.tuples(st.integers(0, (1 << 32) - 1), st.text(max_size=30), st.binary(max_size=5000)),
    max_size=5,
)
cuts = st.lists(st.integers(1, 5000), min_size=1, max_size=20)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, again and again."""
    found = []
    turn = 0
    while data:
        size = sizes[turn % len(sizes)]
        found.append(data[:size])
        data, turn = data[size:], turn + 1
    return found


def together(found: list[tuple[int, bytes]]) -> dict[int, bytes]:
    streams: dict[int, bytes] = {}
    for stream, data in found:
        streams[stream] = streams.get(stream, b"") + data
    return {stream: data for stream, data in streams.items() if data}


@given(payloads, cuts)
def test_frames_cut_anywhere(sent: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = b"".join(mux.frames(*one) for one in sent)
    taken = Demultiplexer()
    received = [
        (stream, bytes(piece)) for part in pieces(data, sizes) for stream, piece in taken.feed(part)
    ]
    assert together(received) == together(sent)


@given(st.binary(max_size=20_000))
def test_no_frame_of_ours_is_longer_than_the_engine_reads(data: bytes) -> None:
    sent, at = mux.frames(1, data), 0
    while at < len(sent):
        _, size = struct.unpack_from(">II", sent, at)
        assert 0 < size <= 4096
        at += 8 + size
    assert at == len(sent)


def test_a_frame_that_no_engine_sends() -> None:
    with pytest.raises(OutOfStepError):
        list(Demultiplexer().feed(struct.pack(">II", 1, 1 << 31)))
    # NRI 0.6's longest is taken, and no part of it is kept.
    taken = Demultiplexer()
    header = struct.pack(">II", 1, 16 << 20)
    assert [len(piece) for _, piece in taken.feed(header + bytes(100))] == [100]


@given(calls, cuts)
def test_calls_cut_anywhere(sent: list[tuple[int, str, bytes]], sizes: list[int]) -> None:
    data = b"".join(ttrpc.request(call, "a.Service", how, body) for call, how, body in sent)
    taken = Packets()
    found = [packet for part in pieces(data, sizes) for packet in taken.feed(part)]
    assert [(one.kind, one.call) for one in found] == [(ttrpc.REQUEST, call) for call, _, _ in sent]
    requests = [ttrpc.read_request(one.data or b"") for one in found]
    assert [(one.service, one.method, one.payload) for one in requests] == [
        ("a.Service", how, body) for _, how, body in sent
    ]


@given(st.integers(0, (1 << 32) - 1), st.text(max_size=50), st.binary(max_size=50))
def test_answers(call: int, said: str, body: bytes) -> None:
    sent = ttrpc.response(call, body) + ttrpc.failure(call, said, ttrpc.UNIMPLEMENTED)
    good, bad = Packets().feed(sent)
    assert (good.call, good.kind, bad.call, bad.kind) == (call, 2, call, 2)
    answer = ttrpc.read_response(good.data or b"")
    assert (answer.code, answer.message, answer.payload) == (0, "", body)
    answer = ttrpc.read_response(bad.data or b"")
    assert (answer.code, answer.message, answer.payload) == (12, said, b"")


def test_a_call_that_is_too_long_is_passed_over_and_known_by_its_number() -> None:
    size = ttrpc.LONGEST + 1
    taken = Packets()
    assert [(one.call, one.data) for one in taken.feed(struct.pack(">IIBB", size, 5, 1, 0))] == [
        (5, None)
    ]
    left = size
    while left:
        piece = bytes(min(left, 1 << 16))
        assert not list(taken.feed(piece))
        left -= len(piece)
    found = list(taken.feed(ttrpc.request(7, "s", "m", b"")))
    assert [(one.call, one.data is None) for one in found] == [(7, False)]


def test_the_longest_call_is_taken_whole_and_then_forgotten() -> None:
    taken = Packets()
    (packet,) = taken.feed(struct.pack(">IIBB", ttrpc.LONGEST, 1, 1, 0) + bytes(ttrpc.LONGEST))
    assert packet.data == bytes(ttrpc.LONGEST)
    # What begins next, byte by byte, isn't mixed with it.
    found = [one for byte in ttrpc.request(3, "s", "m", b"x") for one in taken.feed(bytes([byte]))]
    assert [one.call for one in found] == [3]


@given(st.binary(max_size=2000), cuts)
def test_anything_is_taken_apart_or_is_out_of_step(data: bytes, sizes: list[int]) -> None:
    taken = Demultiplexer()
    packets = {mux.PLUGIN: Packets(), mux.RUNTIME: Packets()}
    try:
        for part in pieces(data, sizes):
            for stream, piece in taken.feed(part):
                for packet in packets[stream].feed(piece) if stream in packets else ():
                    _read(packet)
    except OutOfStepError:
        pass


def _read(packet: ttrpc.Packet) -> None:
    for read in (ttrpc.read_request, ttrpc.read_response):
        try:
            read(packet.data or b"")
        except MalformedError:
            continue
