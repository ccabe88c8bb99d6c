"""errors.py: the exit codes that users script against, and text that can't forge a log."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook import errors
from oci_bpf_hook.errors import EXITS, HookError, Problem, once, quote

# The documented table: an engine's log shows the number and nothing else (crun).
CODES = {
    "DONE": 0,
    "USAGE": 2,
    "BAD_ANNOTATION": 10,
    "UNKNOWN_NAME": 11,
    "REFUSED": 12,
    "KERNEL_CANNOT": 13,
    "NO_USER_NAMESPACE": 14,
    "NO_BROKER": 15,
    "MOUNT_FAILED": 16,
    "BAD_STATE": 17,
    "BAD_POLICY": 18,
    "NOT_AS_GRANTED": 19,
    "FOUND": 20,
    "BAD_OBJECT": 21,
    "BUG": 70,
}


def test_the_codes_are_the_documented_ones() -> None:
    given = {name: value for name, value in vars(errors).items() if name.isupper()}
    del given["EXITS"], given["LISTED"], given["TYPE_CHECKING"]
    assert {name: code for name, code in given.items() if not name.startswith("_")} == CODES


def test_every_code_has_a_meaning_of_its_own() -> None:
    assert sorted(EXITS) == sorted(CODES.values())
    assert len(set(EXITS.values())) == len(EXITS)


def test_an_error_has_its_code_and_problems() -> None:
    error = HookError(errors.BAD_ANNOTATION, "one", "two")
    assert (error.code, error.sentences, str(error)) == (10, ("one", "two"), "one; two")


def test_a_report_lists_no_more_than_twenty() -> None:
    problems = [str(number) for number in range(90_000)]
    assert str(HookError(10, *problems[:20])).split("; ") == problems[:20]
    assert str(HookError(10, *problems[:21])).split("; ") == [*problems[:20], "and 1 more"]
    error = HookError(10, *problems)
    assert str(error).split("; ") == [*problems[:20], "and 89980 more"]
    assert len(error.problems) == 90_000


def test_a_problem_has_its_place_and_what_to_do() -> None:
    problem = Problem("it is wrong", key="io.bpffs.mode/web", item="x", hint="write y")
    assert str(problem) == "it is wrong; write y"
    assert (problem.key, problem.item) == ("io.bpffs.mode/web", "x")
    assert str(Problem("it is wrong")) == "it is wrong"
    with pytest.raises(AttributeError):
        problem.key = "another"  # type: ignore[misc]


def test_a_sentence_alone_is_a_problem_without_a_place() -> None:
    error = HookError(errors.USAGE, "one", Problem("two", hint="do that"))
    assert error.problems == (Problem("one", key=None, item=None, hint=None), error.problems[1])
    assert error.sentences == ("one", "two; do that")


def test_what_to_do_about_all_of_them_comes_last() -> None:
    error = HookError(errors.REFUSED, "one", Problem("two"), hint="add a rule", rule="r")
    assert error.sentences == ("one", "two", "add a rule")
    assert str(error) == "one; two; add a rule"
    # It is a line like any other.
    many = HookError(errors.REFUSED, *map(str, range(20)), hint="add a rule")
    assert str(many).endswith("; 19; and 1 more")


def test_what_reads_the_same_is_said_once() -> None:
    found = list(once([Problem("a", item="1"), Problem("b"), Problem("a", item="2")]))
    assert found == [Problem("a", item="1"), Problem("b")]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec=None, exclude_categories=())))
def test_quoted_text_is_one_short_printable_word(text: str) -> None:
    quoted = quote(text)
    assert quoted.isascii()
    assert quoted.isprintable()
    assert len(quoted) <= 64 * len("\\U0001f600") + len('"..."')


@settings(deadline=None)
@given(
    st.text(
        st.characters(codec=None, exclude_categories=()) | st.sampled_from("\"'\\"), max_size=64
    )
)
def test_quoted_text_can_be_read_back(text: str) -> None:
    # So nothing in it ends the quotation: not a quote, not a backslash in front of one.
    assert ast.literal_eval(quote(text)) == text


def test_long_text_is_cut() -> None:
    assert quote("a" * 64) == '"' + "a" * 64 + '"'
    assert quote("a" * 65) == '"' + "a" * 64 + '..."'
    assert quote("\n" * 5_000_000) == '"' + "\\n" * 64 + '..."'


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("prog_load", '"prog_load"'),
        ("", '""'),
        ('a"b', r'"a\"b"'),
        ("a\nb\x1b[2J", r'"a\nb\x1b[2J"'),
        ("\u202etxt", r'"\u202etxt"'),
        ("\ud800", r'"\ud800"'),
    ],
)
def test_quotations(text: str, quoted: str) -> None:
    assert quote(text) == quoted
