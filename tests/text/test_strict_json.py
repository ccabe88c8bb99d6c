"""JSON is read as the json package reads it where that is strict, and written so that it can be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.text.strict_json import json_object, load_json
from tests.support.json_values import JSON_VALUES
from tests.support.places import ROOT

STATES = ROOT / "tests" / "data" / "states"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.integers() | st.integers(-(10**21), 10**21))
def test_numbers_are_what_int_makes_of_them(number: int) -> None:
    assert load_json(b" %d" % number) == number
    assert load_json(json.dumps([number, 1.5, -0]).encode()) == [number, 1.5, 0]


def _no_constant(name: str) -> object:
    raise ValueError(name)


def strictly(data: bytes) -> object:
    """What the json package makes of it, where that is strict."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError from None


@pytest.mark.parametrize("path", sorted(STATES.glob("*/*.json")), ids=lambda path: path.name)
def test_real_files_are_read_as_json_reads_them(path: Path) -> None:
    assert load_json(path.read_bytes()) == strictly(path.read_bytes())


REFUSED = {
    "NaN": b'{"pid": NaN}',
    "Infinity": b'{"pid": Infinity}',
    "minus Infinity": b"[-Infinity]",
    "trailing text": b"{} x",
    "two values": b"{}{}",
    "two values, two lines": b"{}\n{}\n",
    "nothing": b"",
    "white space": b" \t\r\n",
    "other white space": b"\x0b{}",
    "a no-break space": "\u00a0{}".encode(),
    "a form feed behind": b"{}\x0c",
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "invalid UTF-8": b'{"a": "\xff"}',
    "an encoded surrogate": b'{"a": "\xed\xa0\x80"}',
    "overlong UTF-8": b'{"a": "\xc0\xaf"}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "open lists": b"[" * 100_000,
    "5000 digits": b'{"pid": ' + b"1" * 5000 + b"}",
    "a raw control character": b'{"a": "\x01"}',
    "a raw line feed": b'{"a": "\n"}',
    "an open string": b'{"a": "',
    "an open object": b'{"a": 1',
    "a wrong escape": b'{"a": "\\x"}',
    "half an escape": b'{"a": "\\u12"}',
    "a single quote": b"{'a': 1}",
    "no colon": b'{"a" 1}',
    "no comma": b'{"a": 1 "b": 2}',
    "a comma at the end": b'{"a": 1,}',
    "a comma at the list's end": b"[1,]",
    "a number for a key": b"{1: 2}",
    "a comment": b"{} // x",
    "a plus": b"[+1]",
    "a zero in front": b"[01]",
    "a bare point": b"[1.]",
    "hexadecimal": b"[0x10]",
    "half a word": b"[tru]",
    "a NUL behind": b"{}\0",
}

TAKEN = {
    "white space around": b" \t\r\n{} \t\r\n",
    "a lone surrogate, escaped": b'{"a": "\\ud800"}',
    "a pair of surrogates": b'{"a": "\\ud83d\\ude00"}',
    "one key twice": b'{"a": 1, "a": 2}',
    "a large exponent": b"[1e400]",
    "4000 digits": b"[" + b"1" * 4000 + b"]",
    "many zeros": b"[0." + b"0" * 5000 + b"1]",
    "numbers": b"[0, -0, 1.5, -1e-3, 1E+2]",
    "words": b"[true, false, null]",
    "a NUL, escaped": b'["\\u0000"]',
    "800 lists": b"[" * 800 + b"]" * 800,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"|.+"):
        load_json(data)
    with pytest.raises(ValueError, match=r"|.+"):
        strictly(data)


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN.keys())
def test_what_is_json(data: bytes) -> None:
    assert load_json(data) == strictly(data)


# The scanner behaves differently where the json package was never imported, as in the hook.
_FRESH = """
import sys
sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "without":
    sys.modules["_json"] = None
else:
    assert "json" not in sys.modules
from oci_bpf_hook.text.strict_json import load_json
try:
    value = load_json(sys.stdin.buffer.read())
except ValueError as error:
    print("ValueError", ascii(str(error)))
else:
    print("value", ascii(value))
"""


def fresh(data: bytes, scanner: str) -> str:
    result = subprocess.run(
        [sys.executable, "-ISE", "-c", _FRESH, str(ROOT), scanner],
        input=data,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    return result.stdout.decode()


DEEP = {name: data for name, data in REFUSED.items() if len(data) >= 100_000}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_json_in_a_fresh_interpreter(data: bytes) -> None:
    assert fresh(data, "with").startswith("ValueError ")


@pytest.mark.parametrize(
    ("name", "data"),
    [pytest.param(name, data, id=name) for name, data in REFUSED.items()],
)
def test_what_is_no_json_without_the_scanner(name: str, data: bytes) -> None:
    assert fresh(data, "without").startswith("ValueError ")


_DEPTHS = """
import sys
sys.path.insert(0, sys.argv[1])
from oci_bpf_hook.text.strict_json import load_json
for depth in range(900, 1100):
    for tail in (b"}", b'{"a" 1', b'"\\\\x"', b"1" * 5000, b"NaN", b"]" * depth):
        for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
            del sys.modules[name]
        try:
            load_json(b"[" * depth + tail)
        except ValueError:
            pass
"""


def test_a_mistake_just_above_the_deepest_level() -> None:
    # What says what is wrong runs a little deeper in the stack than what found it.
    subprocess.run([sys.executable, "-ISE", "-c", _DEPTHS, str(ROOT)], check=True)


@pytest.mark.parametrize("scanner", ["with", "without"])
def test_what_is_json_in_a_fresh_interpreter(scanner: str) -> None:
    for data in TAKEN.values():
        if scanner == "with" or len(data) < 1000:
            assert fresh(data, scanner) == f"value {strictly(data)!a}\n"


PIECES = st.sampled_from(
    [
        *(bytes([char]) for char in b'{}[]",:-+.eE019 \t\n\r\\u'),
        *(b'"a"', b"true", b"null", b"NaN", b"\xff"),
    ]
)


@settings(deadline=None, max_examples=500)
@given(
    st.lists(PIECES, max_size=30).map(b"".join)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=50)
)
def test_the_verdict_is_that_of_the_json_package(data: bytes) -> None:
    try:
        wanted = strictly(data)
    except ValueError:
        with pytest.raises(ValueError, match=r"|.+"):
            load_json(data)
    else:
        found = load_json(data)
        assert found == wanted
        assert repr(found) == repr(wanted)


@given(st.dictionaries(st.text(), values))
def test_it_is_json_and_one_line(fields: dict[str, object]) -> None:
    text = json_object(fields)
    assert json.loads(text) == fields
    assert text.isascii()
    assert "\n" not in text
