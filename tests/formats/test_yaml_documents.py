"""yaml_documents.py: several documents, aliases and merges, and what must not hurt."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.formats.yaml_documents import documents
from oci_bpf_hook.text.places import Fault, Spot


def faults(text: str) -> list[str]:
    found: list[Fault] = []
    documents(text.encode(), found)
    return [f"{one.line}:{one.column}: {one.text}" for one in found]


def test_documents() -> None:
    found: list[Fault] = []
    first, second = documents(b"a: 1\n---\n---\n- {b: [c]}\n", found)
    assert found == []
    assert first == ({"a": 1}, _spots({(): (1, 1), ("a", "key"): (1, 1), ("a",): (1, 4)}))
    assert second[1][0, "b", 0] == Spot(line=4, column=8)


def _spots(places: dict[tuple[object, ...], tuple[int, int]]) -> object:
    return {place: Spot(line=line, column=column) for place, (line, column) in places.items()}


def test_aliases_and_merges() -> None:
    text = b"a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: {<<: [*x, {r: 4}]}\nd: *x\n"
    found: list[Fault] = []
    ((data, places),) = documents(text, found)
    assert found == []
    assert data["b"] == {"p": 1, "q": 3}
    assert places["b", "p"] == Spot(line=1, column=11)
    assert places["b", "q"] == Spot(line=2, column=16)
    assert places["c", "r"] == Spot(line=3, column=18)
    assert places["d", "p"] == Spot(line=1, column=11)


def test_what_is_wrong() -> None:
    assert faults("a: 1\na: 2\n") == ['2:1: "a" is given twice']
    assert faults("? [a]\n: 1\n") == ["1:3: a key is a plain word here"]
    (fault,) = faults("a: [")
    assert "this isn't YAML" in fault
    assert faults("a: &a [*a]\n") == ["1:4: this is a part of itself"]
    assert faults("a: 2020-13-45\n") == ["1:4: a value in it can't be read: month must be in 1..12"]


def test_a_bomb() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert any("too large" in fault for fault in faults("\n".join(lines)))
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
    assert any("too large" in fault for fault in faults("\n".join(lines)))


def test_a_large_file_is_no_bomb() -> None:
    """What aliases stand for is counted, and not how large the file itself is."""
    found: list[Fault] = []
    ((data, places),) = documents(b"- {a: 1}\n" * 60_000, found)
    assert (found, len(data)) == ([], 60_000)
    assert places[59_999, "a"] == Spot(line=60_000, column=7)
    large = "a: &a [" + "x, " * 999 + "x]\n"
    assert faults(f"{large}b: [{', '.join(['*a'] * 90)}]\n") == []
    (fault,) = faults(f"{large}b: [{', '.join(['*a'] * 100)}]\n")
    assert fault.endswith("this is too large: aliases stand for more than 100,000 values")


@pytest.mark.parametrize("text", ["[" * 900, "[" * 5000])
def test_nesting(text: str) -> None:
    assert faults(text)


@settings(deadline=None)
@given(st.text() | st.text(alphabet=" \n-:[]{}&*<!|>a0.#'\"%@,?"))
def test_any_text(text: str) -> None:
    found: list[Fault] = []
    read = documents(text.encode("utf-8", "surrogatepass"), found)
    assert read is not None


@settings(deadline=None)
@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    documents(data, [])
