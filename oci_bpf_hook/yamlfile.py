"""YAML as people write it, with the place of every value, so that a fault can be shown.

Only plain data: what the safe loader takes, without aliases and without a key twice.
"""

from typing import Any

import yaml

from .errors import quote
from .places import Fault, Place
from .yamlloader import LOADER, too_deep

# The tags of plain data, behind YAML's own prefix; what doubles as something else, such as a
# date, is meant as a text wherever it stands here.
_TAG = "tag:yaml.org,2002:"
_TAKEN = ("bool", "int", "map", "null", "seq", "str")
_DEEPEST = 32
# Texts that people read; any other is a name, and stands in one line of a log.
_PROSE = ("comment", "deny")


def parse(text: bytes, faults: list[Fault]) -> tuple[Any, dict[Place, yaml.Mark]]:
    """The data in `text`, and where each part of it stands."""
    places: dict[Place, yaml.Mark] = {}
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
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                self._fault(key, "a key is a plain word here, or is in quotes")
                continue
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
    if kind not in _TAKEN:
        return f"{what} reads as a {kind}; if a text is meant, put it in quotes"
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if kind != "str":
        try:
            loader.construct_object(node)
        except (ValueError, LookupError):
            return f"{what} is no {kind}"
    elif not node.value.isprintable() and place[-1:] not in [(word,) for word in _PROSE]:
        return f"{what} has a character that can't be seen, or ends a line"
    return ""


def at(mark: yaml.Mark, text: str) -> Fault:
    return Fault(line=mark.line + 1, column=mark.column + 1, text=text)


def _no_yaml(error: yaml.YAMLError) -> Fault:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return Fault(
            line=mark.line + 1,
            column=mark.column + 1,
            text=f"this is no YAML: {error.problem or error.context}",
        )
    return Fault(line=1, column=1, text=f"this is no YAML: {' '.join(str(error).split())}")
