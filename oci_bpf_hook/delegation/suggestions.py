"""What to say about an unknown name: the names that are like it, or the first Linux that has it.

This module and what it imports are loaded only for a wrong name.
"""

from ..bpf.names import Enum, Kind, bit
from ..errors import LISTED, Problem, quote
from ..similar import similar
from .annotations import PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..bpf.table import Table


class Unknown:
    """The unknown names of one request: each is a problem, or one of the `dropped`."""

    def __init__(self, table: "Callable[[], Table]", *, drop: bool) -> None:
        """With `drop`, names that only newer kernels have are dropped and aren't problems.

        `table` reads the table of all kernels' names, and is called at most once.
        """
        self._find_table = table
        self._drop = drop
        self._table: Table | None = None
        self.problems: list[Problem] = []
        self.dropped: list[str] = []

    def profile(self, name: str, profiles: "Mapping[str, object]") -> None:
        """Note the problem that the profile `name` isn't among the policy's `profiles`."""
        what = f"{PREFIX}profile"
        self.problems.append(
            no_profile(what, name, profiles, key="profile", search=self._is_printed())
        )

    def item(self, kind: Kind, item: str, enum: Enum) -> int:
        """Note an item whose name `enum` lacks, and return the bits that the item still means.

        A dropped item means no bits; a dropped item with "!" means the bit of newer kernels, which
        is taken away.
        """
        self._table = self._table or self._find_table()
        name = item.lstrip("!")
        problem, mask = _no_name(kind, name, enum, self._table, search=self._is_printed())
        if not (self._drop and mask):
            self.problems.append(problem)
            return 0
        self.dropped.append(f"{kind.option}={name}")
        return mask if item[0] == "!" else 0

    def _is_printed(self) -> bool:
        """Whether the next problem will be printed: only then are similar names searched for."""
        return len(self.problems) < LISTED


def _no_name(
    kind: Kind, item: str, enum: Enum, table: "Table", *, search: bool
) -> tuple[Problem, int]:
    """The problem of a name that this kernel lacks, and its bit if a newer kernel has it, or 0."""
    latest = table.enum(kind)
    value = enum.find(item)
    if value is not None:
        return _of(
            kind, item, f"{quote(item)} is {kind.what} {value}, and a mask has only bits 0 to 63"
        ), 0
    value = latest.find(item)
    if value is not None:
        since = table.since(kind, latest.names[value])
        why = f"this kernel has no {kind.what} {quote(item)}, which Linux has had since {since}"
        hint = f"leave it out, or add {PREFIX}on_unknown=drop"
        return _of(kind, item, why, hint), bit(value) or 0
    why = f"no {kind.what} is called {quote(item)}"
    if not search:
        return _of(kind, item, why), 0
    short = item.removeprefix(kind.prefix.lower())
    near = similar(short, enum.values, texts=3)
    names = " or ".join(quote(name) for name in near)
    return _of(kind, item, why, f"did you mean {names}?" if near else None), 0


def _of(kind: Kind, item: str, why: str, hint: str | None = None) -> Problem:
    return Problem(f"{PREFIX}{kind.option}: {why}", key=kind.option, item=item, hint=hint)


def no_profile(
    what: str,
    name: str,
    profiles: "Mapping[str, object]",
    *,
    key: str = "--profile",
    search: bool = True,
) -> Problem:
    """The problem that `what` names a profile which isn't among the policy's `profiles`.

    `key` is the option, or the part of a Request, that has the name.
    """
    text = f"{what}: the policy has no profile {quote(name)}"
    if not search:
        return Problem(text, key=key, item=name)
    near = " or ".join(map(quote, similar(name, profiles)))
    hint = f"did you mean {near}?" if near else f"it has {', '.join(profiles) or 'none'}"
    return Problem(text, key=key, item=name, hint=hint)
