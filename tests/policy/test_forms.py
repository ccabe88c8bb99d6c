"""Names that nobody has given yet: which sets of globs they can match, by trying all of them."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.policy.decide import glob
from oci_bpf_hook.policy.forms import ANY, form, samples

PARTS = st.lists(st.sampled_from(["a", "b", "-", "ab", "b-", "abc"]), min_size=1, max_size=5)
GLOBS = st.lists(st.text("ab-?*", max_size=6), max_size=3)


def every(spelling: tuple[str, ...], more: int = 0) -> set[str]:
    """All names of this `spelling`; for what may be anything, all texts of up to `more` letters."""
    parts: list[list[str]] = []
    for part in spelling:
        lengths = range(more + 1) if part is ANY else (1,)
        letters = part or "abx-"
        parts.append(["".join(text) for n in lengths for text in product(letters, repeat=n)])
    return {"".join(text) for text in product(*parts)}


def matched(globs: list[str], name: str) -> tuple[bool, ...]:
    return tuple(glob(pattern, name) for pattern in globs)


@settings(deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=3), GLOBS)
def test_all_that_can_happen_is_found(spellings: list[list[str]], globs: list[str]) -> None:
    given_form = form("the name", spellings)
    names = set().union(*(every(tuple(one)) for one in spellings))
    found = samples(given_form, globs)
    assert names.issuperset(found)
    assert found[0] == given_form.example
    assert {matched(globs, name) for name in found} == {matched(globs, name) for name in names}
    assert len(found) == len({matched(globs, name) for name in found})


@settings(deadline=None)
@given(PARTS, PARTS, GLOBS)
def test_of_what_may_be_anything(before: list[str], after: list[str], globs: list[str]) -> None:
    found = samples(form("the name", [(*before[:2], ANY, *after[:2])]), globs)
    all_of_them = every((*before[:2], ANY, *after[:2]), more=4)
    assert {matched(globs, name) for name in found} >= {matched(globs, n) for n in all_of_them}


@given(st.lists(PARTS, min_size=1, max_size=3))
def test_its_own_glob_matches_each_name(spellings: list[list[str]]) -> None:
    one = form("the name", spellings)
    names = set().union(*(every(tuple(parts)) for parts in spellings))
    assert all(glob(one.glob, name) for name in names) or not one.glob


@pytest.mark.parametrize(
    ("globs", "count"),
    [
        (["web-*"], 1),
        (["web"], 1),
        (["other-*", "*"], 1),
        (["web-?*"], 1),
        (["web-5*"], 2),
        # No hash begins with what it never has.
        (["web-0*", "web-a*"], 1),
        (["web-*-z*", "web-*-?????"], 2),
        (["web-5*", "web-6*", "web-55*"], 4),
    ],
)
def test_how_many(globs: list[str], count: int) -> None:
    one = form("the names", [(*"web-", *("56bc",) * 3, "-", *("z2",) * 5)])
    assert len(samples(one, globs)) == count


def test_a_glob_made_to_be_slow() -> None:
    """It ends, whatever is in a policy."""
    one = form("the names", [(*"web-", *("abc",) * 40)])
    found = samples(one, ["web-*a" + "?" * 30 + "b*", "*" * 200 + "c"])
    assert len(found) >= 2
