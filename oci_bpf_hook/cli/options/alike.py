"""Tries the requests of many containers, and of those that are alike only the first.

Most pods of a cluster are made from a few templates, so they differ in nothing but their names and
the lines where they stand.
"""

from collections.abc import Callable, Container, Sequence
from operator import attrgetter

from ...formats.container import Asker
from ...text.places import Fault, Spot
from ...values import Value
from .trial import Finding, Trial

# What a file says of a container that only names it.
_NAMES = ("pod",)
# All that the trial of a container depends on, beside its subject.
_REST = attrgetter(*(name for name in Asker.__slots__ if name not in ("name", "subject")))
# What can be looked up as it is.
_SIMPLE = (str, int, bool, frozenset, type(None))
_EMPTY = ()


class Alike:
    """The trials of containers, each made by `try_out` or taken from that of one alike.

    `lines` are those of the file, and `uses` the attributes that the policy's rules match.
    """

    def __init__(
        self,
        lines: Sequence[str],
        uses: Container[str],
        try_out: Callable[[Asker], Trial],
    ) -> None:
        self._lines = lines
        self._try_out = try_out
        self._known: dict[object, Trial | None] = {}
        self._names = [name for name in _NAMES if name not in uses]

    def trial(self, one: Asker) -> Trial:
        """The trial of the request of `one`.  Its subject may be that of a container alike."""
        if one.here.line == 1:
            return self._try_out(one)  # Its places may not be known, or all be in one line.
        key = self._key(one)
        known = self._known.get(key)
        if known is None:
            found = self._try_out(one)
            if key not in self._known:
                # What a refusal advises has the container's names in it.
                self._known[key] = None if found.code else found
            return found
        moved = one.here.line - known.asker.here.line
        fields = {name: getattr(known, name) for name in Trial.__slots__}
        findings = tuple(_moved(finding, moved) for finding in known.findings)
        return Trial(**{**fields, "asker": one, "findings": findings})

    def _key(self, one: Asker) -> object:
        """All that the trial of `one` depends on."""
        top = one.here.line
        subject = {key: value for key, value in one.subject.items() if key not in self._names}
        # An item of an annotation is looked for in its line.
        lines = tuple(self._lines[spot.line - 1] for spot in one.where.values())
        return lines, _plain((subject, *_REST(one)), top)


def _plain(value: object, top: int) -> object:
    """`value` as something that can be looked up, with lines counted from `top`."""
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, Spot):
        return value.line - top, value.column
    if isinstance(value, Fault):
        return value.line - top, value.column, value.text
    if isinstance(value, dict):
        return *value, _plain((*value.values(),), top)
    if isinstance(value, tuple | list):
        # Most are simple or empty, and a call for each of these would take twice as long.
        return tuple(
            [one if type(one) in _SIMPLE else _plain(one, top) if one else _EMPTY for one in value]
        )
    if isinstance(value, Value):
        fields = tuple(map(value.__getattribute__, value.__slots__))
        return type(value), _plain(fields, top)
    return value


def _moved(finding: Finding, lines: int) -> Finding:
    spot = finding.spot
    if spot is None or not lines:
        return finding
    return Finding(
        level=finding.level,
        code=finding.code,
        lint=finding.lint,
        key=finding.key,
        spot=Spot(line=spot.line + lines, column=spot.column),
        text=finding.text,
        doubt=finding.doubt,
    )
