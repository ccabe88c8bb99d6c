"""Reads other programs' YAML files, with the line and column of each value.

These files may have several documents, aliases and merges.  A file may be hostile, since whoever
reads it needn't have written it: whatever is in it, the result is the data or a fault.

The data is made from libyaml's events.  PyYAML's own way, by nodes, takes four times as long and
several times the memory, and a list of all pods of a cluster is large.
"""

from __future__ import annotations

import yaml

from ..errors import quote
from ..text.places import Fault, Spot, fault
from ..text.yaml_loader import LOADER
from .yaml_places import Places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .yaml_places import Marks

_DEEPEST = 64
# The most values that the aliases of a document may stand for, beside those that are written out;
# with aliases of aliases a file of a hundred bytes can mean gigabytes of data.
_MOST = 100_000
_TAG = "tag:yaml.org,2002:"
# Compose's own tags.  The first takes away what another file says, and the second replaces it.
_RESET = "!reset"
_OVERRIDE = "!override"
_NO_MAPPING = "this isn't YAML: expected a mapping or a list of mappings for merging"
_MERGE = "<<"
# The errors that PyYAML's constructors raise for scalars that only look like a date or a number.
_ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def documents(text: bytes, faults: list[Fault]) -> list[tuple[Any, Places]]:
    """Every document in `text` that isn't empty, and the place of each part of it.

    What is wrong with any of them is added to `faults`, and then the result may be incomplete.
    """
    loader: yaml.SafeLoader | None = None
    found: list[tuple[Any, Places]] = []
    try:
        loader = LOADER(text)
        reader = _Reader(loader, faults)
        while loader.check_event():
            document = reader.document()
            if document is not None and not faults:
                found.append(document)
    except _TooMuchError:
        pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        spot = _spot(mark) if mark else Spot(line=1, column=1)
        faults.append(fault(spot, f"this isn't YAML: {error.problem or error.context}"))
    except yaml.YAMLError as error:
        # It has a character that YAML doesn't take; the error's text has two lines.
        faults.append(
            Fault(line=1, column=1, text=f"this isn't YAML: {' '.join(str(error).split())}")
        )
    finally:
        if loader:
            loader.dispose()
    return found


class _TooMuchError(Exception):
    """The fault that has just been added means that the rest mustn't be read."""


class _Open:
    """A mapping or a sequence while its parts are read.

    `size` counts the values in it, and those that its aliases stand for.
    """

    __slots__ = ("anchor", "at", "data", "key", "marks", "merged", "reset", "size", "start")

    def __init__(self, event: Any, data: Any, *, reset: bool) -> None:
        # A dict or a list.
        self.data = data
        self.anchor: str | None = event.anchor
        self.start: yaml.Mark = event.start_mark
        self.reset = reset
        self.marks: Marks = {}
        # The key whose value comes next, and its mark.
        self.key: str | None = None
        self.at = self.start
        self.merged: list[tuple[Any, yaml.Mark]] = []
        self.size = 1


class _Reader:
    """Makes the data of one document after another from a loader's events."""

    def __init__(self, loader: yaml.SafeLoader, faults: list[Fault]) -> None:
        self._loader = loader
        self._faults = faults
        # The value of each plain scalar by its text, since many come again and again.
        self._plain: dict[str, Any] = {}
        self._begin()

    def _begin(self) -> None:
        self._open: list[_Open] = []
        # For each anchor its value, the mark and the size of that, or None while it is read.
        self._anchors: dict[str, tuple[Any, yaml.Mark, int] | None] = {}
        self._places: dict[int, Marks] = {}
        self._root: tuple[Any, yaml.Mark] | None = None
        self._repeated = 0

    def document(self) -> tuple[Any, Places] | None:
        """The next document, or None if it is empty or the stream ends."""
        self._begin()
        # PyYAML's annotations are incomplete.
        take: Any = self._loader.get_event
        # Looking these up for each event would take a tenth of the time.
        scalar = yaml.ScalarEvent
        mapping, mapping_end = yaml.MappingStartEvent, yaml.MappingEndEvent
        sequence, sequence_end = yaml.SequenceStartEvent, yaml.SequenceEndEvent
        while True:
            event: Any = take()
            kind = type(event)
            if kind is scalar:
                if not self._simple(event):
                    self._value(self._scalar(event), event)
            elif kind is mapping:
                self._start(event, {})
            elif kind is mapping_end or kind is sequence_end:
                self._end()
            elif kind is sequence:
                self._start(event, [])
            elif kind is yaml.AliasEvent:
                self._alias(event)
            elif kind is yaml.DocumentEndEvent or kind is yaml.StreamEndEvent:
                break
        if self._root is None or self._root[0] is None:
            return None
        data, mark = self._root
        return data, Places(data, _spot(mark), self._places)

    def _simple(self, event: Any) -> bool:
        """Put a scalar where it belongs if that is simple, as it is for most of them."""
        text: str = event.value
        if event.tag is not None or event.anchor is not None or text == _MERGE or not self._open:
            return False
        top = self._open[-1]
        mark = event.start_mark
        data = top.data
        if top.key is None and type(data) is dict:
            # A key is a text, whatever it looks like.
            if text in top.marks:
                self._fault(mark, f"{quote(text)} is given twice")
            top.key = text
            top.at = mark
            top.size += 1
            return True
        if not event.implicit[0]:
            value: Any = text
        elif text in self._plain:
            value = self._plain[text]
        else:
            return False
        key = top.key
        if key is None or key is _MERGE:
            self._add(value, mark, 1, text)
        else:
            # The same as _add does, without a call, since most values are of this kind.
            data[key] = value
            top.marks[key] = top.at, mark
            top.key = None
            top.size += 1
        return True

    def _start(self, event: Any, data: dict[Any, Any] | list[Any]) -> None:
        if len(self._open) >= _DEEPEST:
            self._fault(event.start_mark, "this is nested too deeply")
            raise _TooMuchError
        if event.tag is not None:
            self._known(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Open(event, data, reset=event.tag == _RESET))

    def _end(self) -> None:
        done = self._open.pop()
        if done.merged:
            self._merge(done)
        self._places[id(done.data)] = done.marks
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.data, done.start, done.size)
        data = None if done.reset else done.data
        self._add(data, done.start, done.size, None)

    def _value(self, value: Any, event: Any) -> None:
        mark = event.start_mark
        text = event.value
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, mark, 1)
        if text == _MERGE and event.implicit[0]:
            text = _MERGE  # It is compared by identity, as a key in quotes is no merge.
        self._add(value, mark, 1, text)

    def _alias(self, event: Any) -> None:
        mark = event.start_mark
        if event.anchor not in self._anchors:
            self._fault(mark, f"this isn't YAML: found undefined alias {quote(event.anchor)}")
        found = self._anchors.get(event.anchor, (None, mark, 1))
        if found is None:
            start = next(one.start for one in self._open if one.anchor == event.anchor)
            self._fault(start, "this is a part of itself")
            found = (None, mark, 1)
        value, start, size = found
        self._repeated += size
        if self._repeated > _MOST:
            self._fault(mark, f"this is too large: aliases stand for more than {_MOST:,} values")
            raise _TooMuchError
        self._add(value, start, size, value if isinstance(value, str) else None)

    def _add(self, value: Any, mark: yaml.Mark, size: int, text: str | None) -> None:
        """Put `value` where it belongs; `text` is what is written, if it is a scalar."""
        if not self._open:
            self._root = (value, mark)
            return
        top = self._open[-1]
        top.size += size
        data = top.data
        key = top.key
        if isinstance(data, list):
            top.marks[len(data)] = mark, mark
            data.append(value)
        elif key is None:
            top.key = self._key(top, mark, text)
            top.at = mark
        else:
            top.key = None
            if key is _MERGE:
                top.merged.append((value, mark))
                return
            data[key] = value
            top.marks[key] = top.at, mark

    def _key(self, top: _Open, mark: yaml.Mark, text: str | None) -> str:
        """The key with this `text`.  Each key is a text, as in JSON, whatever it looks like."""
        if text is None:
            self._fault(mark, "a key is a plain word here")
            return ""
        if text in top.marks:
            self._fault(mark, f"{quote(text)} is given twice")
        return text

    def _merge(self, done: _Open) -> None:
        """Add what is merged into the mapping `done`; what it has itself goes before."""
        assert isinstance(done.data, dict)
        for value, mark in done.merged:
            for one in value if isinstance(value, list) else [value]:
                if not isinstance(one, dict):
                    self._fault(mark, _NO_MAPPING)
                    continue
                for key, inner in one.items():
                    done.data.setdefault(key, inner)
                for text, marks in self._places[id(one)].items():
                    done.marks.setdefault(text, marks)

    def _scalar(self, event: Any) -> Any:
        """The value of a scalar."""
        text: str = event.value
        if event.tag is None and event.implicit[0]:
            if text in self._plain:
                return self._plain[text]
            resolve: Any = self._loader.resolve
            tag = resolve(yaml.ScalarNode, text, (True, False))
            value = self._plain[text] = self._constructed(tag, event)
            return value
        self._known(event)
        if event.tag == _RESET:
            return None
        if event.tag is None or not event.tag.startswith(_TAG):
            return text
        return self._constructed(event.tag, event)

    def _constructed(self, tag: str, event: Any) -> Any:
        if tag in _TEXTS:
            return event.value
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        try:
            return self._loader.construct_object(node)
        except _ODD as error:
            self._fault(event.start_mark, f"a value in it can't be read: {error}")
            return None

    def _known(self, event: Any) -> None:
        """Add a fault unless `event` has a tag that is known, or none."""
        tag: str | None = event.tag
        if tag and tag not in (_RESET, _OVERRIDE, "!") and tag not in _TAGS:
            what = f"{quote(tag)} is a tag, and only YAML's own and Compose's are read here"
            self._fault(event.start_mark, f"{what}; put a text that begins with a ! in quotes")

    def _fault(self, mark: yaml.Mark, text: str) -> None:
        self._faults.append(fault(_spot(mark), text))


# A merge key is one only as a key, and `=` means the default value of a mapping in no file.
_TEXTS = {_TAG + name for name in ("merge", "str", "value")}
_TAGS = {
    _TAG + name
    for name in (
        *("binary", "bool", "float", "int", "map", "merge", "null", "omap", "pairs", "seq"),
        *("set", "str", "timestamp", "value"),
    )
}


def _spot(mark: yaml.Mark) -> Spot:
    return Spot(line=mark.line + 1, column=mark.column + 1)
