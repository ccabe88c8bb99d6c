"""Messages: what is written is read back; whatever else is sent is an error or passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.nri.wire.protobuf import MOST, MalformedError, Message, encode

numbers = st.integers(0, (1 << 64) - 1)
fields = st.integers(1, (1 << 29) - 1)
texts = st.text(max_size=200)


@given(fields, numbers)
def test_a_number(field: int, value: int) -> None:
    assert Message(encode({field: value})).number(field) == value


@given(fields, st.lists(texts, max_size=5))
def test_texts(field: int, values: list[str]) -> None:
    message = Message(encode({field: values}))
    assert message.texts(field) == tuple(values)
    assert message.text(field) == (values[-1] if values else "")
    assert message.data(field) == (values[-1].encode() if values else b"")


@given(fields, st.dictionaries(texts, texts, max_size=5))
def test_a_map(field: int, values: dict[str, str]) -> None:
    assert Message(encode({field: values})).pairs(field) == values


def test_what_is_missing_is_empty() -> None:
    message = Message(b"")
    assert (message.number(1), message.text(1), message.data(1)) == (0, "", b"")
    assert (message.texts(1), message.messages(1), message.pairs(1)) == ((), (), {})
    assert message.message(1).message(2).number(3) == 0


def test_bytes_as_the_format_has_them() -> None:
    # The examples of the format's own description: 150 in field 1, "testing" in field 2.
    assert encode({1: 150, 2: "testing"}) == bytes.fromhex("089601120774657374696e67")
    # A negative number has ten bytes, and is given as the number of 64 bits that it is.
    minus_2 = Message(bytes.fromhex("08feffffffffffffffff01"))
    assert minus_2.number(1) == (1 << 64) - 2


def test_the_last_value_counts_and_inner_messages_are_merged() -> None:
    both = encode({1: 5}) + encode({1: 6})
    assert Message(both).number(1) == 6
    inner = [encode({1: 1, 2: "a"}), encode({2: "b"})]
    merged = Message(encode({7: inner})).message(7)
    assert (merged.number(1), merged.text(2)) == (1, "b")


def test_unknown_fields_are_passed_over() -> None:
    unknown = encode({9: 1, 10: "text", 3000: {"a": "b"}})
    fixed = bytes([11 << 3 | 1]) + bytes(8) + bytes([12 << 3 | 5]) + bytes(4)
    assert Message(unknown + fixed + encode({1: "here"}) + unknown).text(1) == "here"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("08", "number without an end"),
        ("08ffffffffffffffffffff", "number without an end"),
        ("0a05616263", "ends within a field"),
        ("0a", "number without an end"),
        ("0affffffffffffffffff01", "ends within a field"),
        ("0900000000", "ends within a field"),
        ("0d0000", "ends within a field"),
        ("0b0c", "type 3"),
        ("0f", "type 7"),
        ("0000", "the number 0"),
        ("808080808001", "the number"),
    ],
)
def test_what_is_no_message(data: str, words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        Message(bytes.fromhex(data))


def test_another_type_than_the_field_has() -> None:
    message = Message(encode({1: 5, 2: "text", 3: b"\xff", 4: "no map"}))
    for read in (message.text, message.texts, message.data, message.message, message.pairs):
        with pytest.raises(MalformedError):
            read(1)
    with pytest.raises(MalformedError):
        message.number(2)
    with pytest.raises(MalformedError):
        message.text(3)
    with pytest.raises(MalformedError):
        message.pairs(4)


@given(st.binary(max_size=300))
def test_anything_is_a_message_or_an_error(data: bytes) -> None:
    try:
        message = Message(data)
        for field in range(1, 20):
            for read in (message.number, message.text, message.data, message.pairs):
                try:
                    read(field)
                except MalformedError:
                    continue
    except MalformedError:
        pass


def test_more_fields_than_are_read() -> None:
    """The engine waits while they are read, and a pod's author chooses how many there are."""
    most = encode({7: [b"a"] * MOST})
    assert len(Message(most).texts(7)) == MOST
    # Nobody reads an inner message that isn't asked for.
    outer = Message(encode({1: "id", 2: most + encode({8: "b"})}))
    assert outer.text(1) == "id"
    with pytest.raises(MalformedError, match="more than 65536 fields"):
        outer.message(2)


def test_depth_costs_nothing() -> None:
    data = b""
    for _ in range(10_000):
        data = encode({1: data}) if data else encode({1: 1})
    assert Message(data).message(1)
