"""Says which names a container or a pod can get, as long as nobody has given it one.

A rule's glob may match all of these names, some of them or none.  `samples` finds names that stand
for all that can happen, so that whoever foresees a decision can decide for each of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from ..values import Value
from .whom import literally

# One character of a name: those that it can be.  ANY stands for any number of characters.
Part = str
ANY = ""
_OF_NAMES = "abcdefghijklmnopqrstuvwxyz0123456789-_.ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# The most states that are followed for each place in a name; only a glob with many ? after a *
# has more.
_MOST = 2000


class Form(Value):
    """What is known of a name that nobody has given yet.

    `spellings` are the forms that the name can have, the usual one first.  `example` is a name of
    the usual form, and all of the names begin with `fixed`.  `glob` is for a rule that is to match
    each name, and is empty if no glob does that without matching many others.  `what` says whose
    name it is, such as "the names of the pods of the Deployment web".  `advice`, if it isn't empty,
    says how the name would be known.
    """

    __slots__ = ("advice", "example", "fixed", "glob", "spellings", "what")
    advice: str
    example: str
    fixed: str
    glob: str
    spellings: tuple[tuple[Part, ...], ...]
    what: str


def form(
    what: str,
    spellings: Iterable[Sequence[Part]],
    *,
    stem: int | None = None,
    glob: str | None = None,
    advice: str = "",
) -> Form:
    """The Form of a name with these `spellings`.

    Without a `glob` at most the first `stem` characters that all names have in common are in it.
    """
    ordered = tuple(dict.fromkeys(tuple(one) for one in spellings))
    fixed = _fixed(ordered)
    if glob is None:
        glob = f"{literally(fixed[:stem])}*" if fixed[:stem] else ""
    return Form(
        advice=advice,
        example="".join(_example(place, part) for place, part in enumerate(ordered[0])),
        fixed=fixed,
        glob=glob,
        spellings=ordered,
        what=what,
    )


def may_differ(form: Form, globs: Iterable[str]) -> list[str]:
    """Those of the `globs` that don't match all names, or none, by the first characters alone."""
    return [glob for glob in globs if _is_open(glob, form.fixed)]


def samples(form: Form, globs: Iterable[str]) -> tuple[str, ...]:
    """Names of this `form`, the example first: one for each set of `globs` that a name can match.

    Of two names that match the same globs only one is there.
    """
    patterns = tuple(dict.fromkeys(may_differ(form, globs)))
    start = tuple(_after(pattern, [0]) for pattern in patterns)
    found = {_matched(patterns, _walk(patterns, start, form.example)): form.example}
    ends = tuple(spelling[len(form.fixed) :] for spelling in form.spellings)
    for matched, end in _ends(patterns, _walk(patterns, start, form.fixed), ends):
        found.setdefault(matched, form.fixed + end)
    return tuple(found.values())


# For each pattern, the places in it that the text so far can have reached.
_State = tuple[frozenset[int], ...]


# The pods of all Deployments have the same ends.
@lru_cache(maxsize=64)
def _ends(
    patterns: tuple[str, ...], state: _State, ends: tuple[tuple[Part, ...], ...]
) -> tuple[tuple[tuple[bool, ...], str], ...]:
    """A text for each set of `patterns` that match, if from `state` on a name has these `ends`."""
    letters = set("".join(patterns))
    found: dict[tuple[bool, ...], str] = {}
    for end in ends:
        states = {state: ""}
        for part in end:
            states = _next(patterns, states, part, letters)
        for reached, text in states.items():
            found.setdefault(_matched(patterns, reached), text)
    return tuple(found.items())


def _next(
    patterns: Sequence[str], states: dict[_State, str], part: Part, letters: set[str]
) -> dict[_State, str]:
    """The states after one `part` of a name, each with a text that leads there."""
    found: dict[_State, str] = dict(states) if part is ANY else {}
    # Characters that are in no pattern are all alike.
    chars = part or _OF_NAMES
    tried = [one for one in chars if one in letters]
    tried += [one for one in chars if one not in letters][:1]
    todo = list(states.items())
    while todo and len(found) < _MOST:
        state, text = todo.pop(0)
        for char in tried:
            reached = _step(patterns, state, char)
            if reached not in found:
                found[reached] = text + char
                if part is ANY:
                    todo.append((reached, text + char))
    return found


def _walk(patterns: Sequence[str], state: _State, text: str) -> _State:
    for char in text:
        state = _step(patterns, state, char)
    return state


def _step(patterns: Sequence[str], state: _State, char: str) -> _State:
    return tuple(
        _after(pattern, list(_moved(pattern, places, char)))
        for pattern, places in zip(patterns, state, strict=True)
    )


def _moved(pattern: str, places: Iterable[int], char: str) -> Iterator[int]:
    for place in places:
        wanted = pattern[place] if place < len(pattern) else None
        if wanted == "*":
            yield place
        elif wanted in ("?", char):
            yield place + 1


def _after(pattern: str, places: list[int]) -> frozenset[int]:
    """The `places`, and those after a `*`, which may stand for nothing.

    A place before the last `*` is left out, since whatever matches from there does so from the `*`.
    """
    star = -1
    found = set(places)
    for place in places:
        end = place
        while end < len(pattern) and pattern[end] == "*":
            star = max(star, end)
            end += 1
            found.add(end)
    return frozenset(place for place in found if place >= star)


def _matched(patterns: Sequence[str], state: _State) -> tuple[bool, ...]:
    return tuple(len(pattern) in places for pattern, places in zip(patterns, state, strict=True))


def _is_open(glob: str, fixed: str) -> bool:
    """Whether the first characters of the `glob` leave open what it matches.

    `fixed` are those that all names have.
    """
    literal = glob.partition("*")[0].partition("?")[0]
    if glob == f"{literal}*" and fixed.startswith(literal):
        return False
    return fixed.startswith(literal) or literal.startswith(fixed)


def _fixed(spellings: Sequence[Sequence[Part]]) -> str:
    """The first characters that all `spellings` have."""
    found = ""
    for parts in zip(*spellings, strict=False):
        if len(parts[0]) != 1 or any(part != parts[0] for part in parts):
            break
        found += parts[0]
    return found


def _example(place: int, part: Part) -> str:
    """A character for the `part`; what could be anything is shown as x."""
    return part[(7 * place + 3) % len(part)] if part else "x"
