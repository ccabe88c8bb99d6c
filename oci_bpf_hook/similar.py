"""Finds the names that somebody may have meant by one that isn't known.

People misspell a name, or write only a word of it, as `cmds` for `delegate_cmds` and `skb` for
`cgroup_skb`.  A word has so few letters of a long name that some other short name is more like it,
so each run of whole words in a name counts as much as the whole name.  This module is loaded only
for a wrong name.
"""

from difflib import get_close_matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The search takes time with the length, and no name is this long.
_LONGEST = 64
# As many lists can be delegated, and "delegate" means each of them.
_MOST = 4
# Short texts are soon alike by chance.
_SHORTER = 0.15


def similar(name: str, known: "Iterable[str]", *, texts: int = 1, cutoff: float = 0.6) -> list[str]:
    """The `known` names that are most like `name`, the likeliest first; at most four.

    They are those with the likeliest `texts`, each a whole name, or else some words that one or
    more names have.  `cutoff` is the likeness, from 0 to 1, below which no name is proposed.
    """
    wanted = name[:_LONGEST].lower()
    whole = {one.lower(): [one] for one in known}
    runs: dict[str, list[str]] = {}
    for text, names in whole.items():
        for run in _runs(_words(text), len(_words(wanted))):
            runs.setdefault(run, []).extend(names)
    near_runs = get_close_matches(wanted, runs, n=texts, cutoff=cutoff + _SHORTER)
    near = get_close_matches(wanted, {*whole, *near_runs}, n=texts, cutoff=cutoff)
    meant = runs | whole
    return list(dict.fromkeys(one for text in near for one in meant[text]))[:_MOST]


def _words(text: str) -> list[str]:
    return text.replace("-", "_").replace(".", "_").split("_")


def _runs(words: list[str], count: int) -> "Iterator[str]":
    """Each run of `count` of the `words`."""
    return ("_".join(words[at : at + count]) for at in range(len(words) - count + 1))
