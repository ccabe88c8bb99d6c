"""YAML as people write it, with the place of every value, so that a fault can be shown.

Only plain data: what the safe loader takes, without aliases and without a key twice.
"""

from typing import Any

import yaml

from ..errors import quote
from .places import Fault, Place, fault, spot_of
from .yaml_loader import LOADER, too_deep

# The tags of plain data, behind YAML's own prefix; what doubles as something else, such as a
# date, is meant as a text wherever it stands here.
_TAG = "tag:yaml.org,2002:"
_TAKEN = ("bool", "int", "map", "null", "seq", "str")
_DEEPEST = 32
# Texts that people read; any other is a name, and stands in one line of a log.
_PROSE = ("comment", "deny")
_UNSEEN = "has a character that can't be seen, or ends a line"
_QUOTES = "; what begins with a ! stands in quotes, as YAML has tags"


def parse(text: bytes, faults: list[Fault]) -> tuple[Any, dict[Place, yaml.Mark]]:
    """The data in `text`, and where each part of it stands."""
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
            faults.append(Fault(line=1, column=1, text="the file is empty; it takes version: 1"))
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
    """Where `text` has what is no UTF-8, or what YAML doesn't take; it says no line for these."""
    try:
        found = yaml.reader.Reader.NON_PRINTABLE.search(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        before = text[: error.start].decode("utf-8")
        return fault(spot_of(before, len(before)), "this is no UTF-8")
    if found is None:
        return None
    return fault(spot_of(found.string, found.start()), f"{quote(found[0])} can't stand in YAML")


class _Walk:
    """Notes where everything stands, and what can't stand there."""

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
            # An alias of an alias of an alias is a file of a hundred bytes and gigabytes of data.
            self._fault(node, "aliases aren't taken; name a profile instead")
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
                self._fault(key, "merging isn't taken; name a profile instead")
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                self._fault(key, "a key is a plain word here, or is in quotes")
                continue
            if not key.value.isprintable():
                self._fault(key, f"{quote(key.value)} {_UNSEEN}")
            if key.value in keys:
                self._fault(key, f"{quote(key.value)} stands here twice")
            keys.add(key.value)
            self.walk(value, (*place, key.value))
            self._places[(*place, key.value, "key")] = key.start_mark

    def _fault(self, node: yaml.Node, text: str) -> None:
        self._faults.append(at(node.start_mark, text))


def _wrong(loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> str:
    """Why the loader can't or shouldn't make a value of this node, or an empty string."""
    kind = node.tag.removeprefix(_TAG)
    what = quote(node.value) if isinstance(node, yaml.ScalarNode) else "this"
    if kind.startswith("!"):
        return f"{quote(kind)} is a tag here{_QUOTES}"
    if kind not in _TAKEN:
        return f"{what} reads as a {kind}; if a text is meant, put it in quotes"
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if kind == "str":
        seen = node.value.isprintable() or place[-1:] in [(word,) for word in _PROSE]
        return "" if seen else f"{what} {_UNSEEN}"
    try:
        number = str(loader.construct_object(node))
    except (ValueError, LookupError):
        return f"{what} is no {kind}"
    if kind == "int" and number != node.value:
        # YAML 1.1 has octal 0100, 1:30 of minutes and hours, and more: nobody means those.
        return f"{what} reads as the number {number[:20]}; write that, or put a text in quotes"
    return ""


def at(mark: yaml.Mark, text: str) -> Fault:
    return Fault(line=mark.line + 1, column=mark.column + 1, text=text)


def _no_yaml(error: yaml.YAMLError) -> Fault:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        what = error.problem or error.context or ""
        if what.startswith("but "):
            what = f"{error.context}, {what}"
        hint = _QUOTES if error.context == "while scanning a tag" else ""
        return at(error.problem_mark, f"this is no YAML: {what}{hint}")
    return Fault(line=1, column=1, text=f"this is no YAML: {' '.join(str(error).split())}")
