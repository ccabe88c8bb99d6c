"""Reads YAML with the line and column of every value, so that a fault can be shown at its place.

Only plain data is allowed: what the safe loader takes, but no aliases, and no key twice.
"""

from typing import Any

import yaml

from ..errors import quote
from .places import Fault, Place, fault, spot_of
from .yaml_loader import LOADER, too_deep

# The tags of plain data, which begin with YAML's own prefix.  A value with another tag, such as a
# date, was meant as a text, since a policy has no such values.
_TAG = "tag:yaml.org,2002:"
_ALLOWED = ("bool", "int", "map", "null", "seq", "str")
_DEEPEST = 32
# The keys of texts for people; every other text is a name, which must fit in one line of a log.
_PROSE = ("comment", "deny")
_UNSEEN = "has a character that can't be printed, or a line end"
_QUOTES = "; put a text that begins with a ! in quotes, since YAML takes it for a tag"


def parse(text: bytes, faults: list[Fault]) -> tuple[Any, dict[Place, yaml.Mark]]:
    """The data in `text`, and the place of each part of it; what is wrong is added to `faults`.

    If anything is wrong the data is None.
    """
    places: dict[Place, yaml.Mark] = {}
    if unreadable := _unreadable(text):
        faults.append(unreadable)
        return None, places
    try:
        loader = LOADER(text)
    except yaml.YAMLError as error:
        faults.append(_no_yaml(error))
        return None, places
    try:
        if deep := too_deep(text, _DEEPEST):
            faults.append(at(deep, "this is nested too deeply"))
            return None, places
        node = loader.get_single_node()
        if node is None:
            faults.append(
                Fault(line=1, column=1, text="the file is empty; it has to have version: 1")
            )
            return None, places
        _Walk(loader, places, faults).walk(node, ())
        if faults:
            return None, places
        return loader.construct_document(node), places
    except yaml.YAMLError as error:
        faults.append(_no_yaml(error))
        return None, places
    finally:
        loader.dispose()


def _unreadable(text: bytes) -> Fault | None:
    """The first place where `text` isn't UTF-8 or has a character that YAML doesn't take, or None.

    PyYAML's own errors for these don't say the line.
    """
    try:
        found = yaml.reader.Reader.NON_PRINTABLE.search(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8")
        return fault(spot_of(before, len(before)), "this isn't UTF-8")
    if found is None:
        return None
    return fault(spot_of(found.string, found.start()), f"{quote(found[0])} can't stand in YAML")


class _Walk:
    """Notes the place of every value, and a fault for each value that isn't allowed."""

    def __init__(
        self, loader: yaml.SafeLoader, places: dict[Place, yaml.Mark], faults: list[Fault]
    ) -> None:
        self._loader = loader
        self._places = places
        self._faults = faults
        self._seen: set[int] = set()

    def walk(self, node: yaml.Node, place: Place) -> None:
        self._places[place] = node.start_mark
        if id(node) in self._seen:
            # With aliases of aliases a file of a hundred bytes can mean gigabytes of data.
            self._fault(node, "aliases aren't allowed; name a profile instead")
            return
        wrong = _wrong(self._loader, node, place)
        if wrong:
            self._fault(node, wrong)
        elif isinstance(node, yaml.MappingNode):
            self._seen.add(id(node))
            self._mapping(node, place)
        elif isinstance(node, yaml.SequenceNode):
            self._seen.add(id(node))
            for number, value in enumerate(node.value):
                self.walk(value, (*place, number))

    def _mapping(self, node: yaml.MappingNode, place: Place) -> None:
        keys: set[str] = set()
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                self._fault(key, "merge keys aren't allowed; name a profile instead")
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                self._fault(key, "a key is a plain word here, or is in quotes")
                continue
            if not key.value.isprintable():
                self._fault(key, f"{quote(key.value)} {_UNSEEN}")
            if key.value in keys:
                self._fault(key, f"{quote(key.value)} is given twice")
            keys.add(key.value)
            self.walk(value, (*place, key.value))
            self._places[(*place, key.value, "key")] = key.start_mark

    def _fault(self, node: yaml.Node, text: str) -> None:
        self._faults.append(at(node.start_mark, text))


def _wrong(loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> str:
    """A sentence why the loader can't or shouldn't make a value of `node`, or an empty string."""
    kind = node.tag.removeprefix(_TAG)
    what = quote(node.value) if isinstance(node, yaml.ScalarNode) else "this"
    if kind.startswith("!"):
        return f"{quote(kind)} is a tag here{_QUOTES}"
    if kind not in _ALLOWED:
        return f"{what} reads as a {kind}; if a text is meant, put it in quotes"
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if kind == "str":
        seen = node.value.isprintable() or place[-1:] in [(word,) for word in _PROSE]
        return "" if seen else f"{what} {_UNSEEN}"
    try:
        number = str(loader.construct_object(node))
    except (ValueError, LookupError):
        return f"{what} isn't of the type {kind}"
    if kind == "int" and number != node.value:
        # YAML 1.1 reads 0100 as an octal number and 1:30 as base 60, which nobody means here.
        return f"{what} reads as the number {number[:20]}; write that, or put a text in quotes"
    return ""


def at(mark: yaml.Mark, text: str) -> Fault:
    """The fault that `text` describes, at `mark`."""
    return Fault(line=mark.line + 1, column=mark.column + 1, text=text)


def _no_yaml(error: yaml.YAMLError) -> Fault:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        what = error.problem or error.context or ""
        if what.startswith("but "):
            what = f"{error.context}, {what}"
        hint = _QUOTES if error.context == "while scanning a tag" else ""
        return at(error.problem_mark, f"this isn't YAML: {what}{hint}")
    return Fault(line=1, column=1, text=f"this isn't YAML: {' '.join(str(error).split())}")
