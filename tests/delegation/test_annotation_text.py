"""Annotations with any text whatsoever, which are understood or refused in printable lines."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.delegation.annotations import KEYS, LISTS, MODE, PATH, PREFIX, Request, parse
from oci_bpf_hook.delegation.written import written
from oci_bpf_hook.errors import BAD_ANNOTATION, HookError
from tests.support.requests import CONTAINERD, CRI_O, io, nobody, request

HOSTILE = [
    pytest.param("a\nroot: all is well", id="a line of its own"),
    pytest.param("a\x1b[2J\x07", id="terminal control"),
    pytest.param("a\x00b", id="NUL"),
    pytest.param("\u202e\u2066\u200d", id="bidirectional"),
    pytest.param("\ud800\udfff", id="surrogates"),
    pytest.param('"; exit code 0; "', id="quotes"),
    pytest.param("\\" * 100, id="backslashes"),
    pytest.param("\U0001f600" * 1000, id="emoji"),
    pytest.param("x" * 3_000_000, id="megabytes"),
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("key", KEYS)
def test_hostile_values_stay_out_of_the_message(key: str, text: str) -> None:
    try:
        parse(io(delegate_maps="hash") | io(**{key: text}), nobody)
    except HookError as error:
        check_message(error)
    else:
        # Words, if three megabytes long: whether they are names is for the kernel to say.
        assert key in (*LISTS, "profile")
        assert set(text) <= {*string.ascii_lowercase, *" :\n"}


def check_message(error: HookError) -> None:
    assert error.code == BAD_ANNOTATION
    assert str(error).isascii()
    assert str(error).isprintable()
    assert all(len(each) < 2000 for each in error.sentences)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("base", ["", "path", "delegate_cmds"])
def test_hostile_keys_stay_out_of_the_message(base: str, text: str) -> None:
    for key in (base + text, f"{base}/{text}"):
        with pytest.raises(HookError) as caught:
            parse({PREFIX + key: "!!"}, lambda: None)
        check_message(caught.value)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_out_of_the_message(text: str) -> None:
    with pytest.raises(HookError) as caught:
        parse({f"{PREFIX}delegate_cmds/{text}": "!!", CRI_O: text}, nobody)
    check_message(caught.value)


@pytest.mark.parametrize(
    "text", [case for case in HOSTILE if case.id not in ("quotes", "backslashes")]
)
def test_hostile_names_stay_out_of_the_message_about_a_lonely_key(text: str) -> None:
    with pytest.raises(HookError) as caught:
        parse({f"{PREFIX}mode/{text}": "0700", CRI_O: text}, nobody)
    check_message(caught.value)


def test_a_megabyte_of_problems_is_a_short_message() -> None:
    with pytest.raises(HookError) as caught:
        parse(io(delegate_cmds=" ".join(map(str, range(100_000)))), nobody)
    assert len(caught.value.sentences) == 100_000
    assert len(str(caught.value)) < 5_000


WORDS = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=20).filter(
    lambda word: not word.isdecimal() and not word.startswith("0x") and word != "any"
)
MASKS = st.integers(0, (1 << 64) - 1).map(hex)
POSITIVE = WORDS | MASKS | st.just("any")
NEGATIVE = (WORDS | MASKS).map(lambda word: "!" + word)
ITEMS = st.tuples(
    st.lists(POSITIVE, min_size=1, max_size=5), st.lists(NEGATIVE, max_size=3)
).flatmap(lambda both: st.permutations([*both[0], *both[1]]))
LISTS_OF_ITEMS = ITEMS.map(lambda items: tuple(dict.fromkeys(items)))
PARTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/")
    | st.just(" "),
    min_size=1,
    max_size=30,
).filter(lambda part: part not in (".", ".."))
PROFILES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=63)
REQUESTS = st.builds(
    Request,
    lists=st.dictionaries(st.sampled_from(LISTS), LISTS_OF_ITEMS, min_size=1),
    path=st.lists(PARTS, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
    | st.just(PATH),
    mode=st.integers(0, 0o7777) | st.just(MODE),
    drop_unknown=st.booleans(),
    profiles=st.lists(PROFILES, max_size=3, unique=True).map(tuple),
    record=st.just(""),
    shim=st.booleans(),
)


@settings(deadline=None)
@given(REQUESTS)
def test_a_request_printed_reads_as_itself(wanted: Request) -> None:
    assert request(written(wanted)) == wanted


@settings(deadline=None)
@given(REQUESTS, st.data())
def test_what_is_written_in_another_way_is_the_same(wanted: Request, data: st.DataObject) -> None:
    separators = st.sampled_from([",", ":", " ", "\n", " , ", "::", "\t:\r\n"])
    annotations = written(wanted)
    for option, items in wanted.lists.items():
        text = data.draw(separators)
        for item in items:
            text += data.draw(st.sampled_from([item, item.upper(), item.title()]))
            text += data.draw(separators)
        annotations[PREFIX + option] = text
    annotations.setdefault(PREFIX + "path", PATH)
    annotations.setdefault(PREFIX + "mode", "01777")
    annotations.setdefault(PREFIX + "on_unknown", "fail")
    assert request(annotations) == wanted


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
LIKELY_TEXT = st.text(st.sampled_from("any!0x1f_,: \n/.7kprobe\ud800\u212a"))
NAMES = st.sampled_from(["", "web", "a/b", "db"])
ANY_KEY = st.builds(
    lambda base, suffix: PREFIX + base + suffix,
    st.sampled_from(KEYS) | ANY_TEXT,
    st.just("") | NAMES.map(lambda name: "/" + name),
)


@settings(deadline=None, max_examples=500)
@given(
    st.dictionaries(ANY_KEY | st.sampled_from([CRI_O, CONTAINERD]), ANY_TEXT | LIKELY_TEXT | NAMES),
    st.none() | NAMES,
)
def test_anything_else_is_a_bad_annotation(
    annotations: dict[str, str], engine_name: str | None
) -> None:
    try:
        found = parse(annotations, lambda: engine_name)
    except HookError as error:
        check_message(error)
        return
    if found is not None:
        assert request(written(found)) == found
        assert found.lists or found.profiles or found.record
        assert all(found.lists.values())
