"""YAML as people write it, with the place of every value, so that a fault can be shown.

Only plain data: what the safe loader takes, without aliases and without a key twice.
"""

from typing import Any

import yaml

from .errors import quote
from .places import Fault, Place

# libyaml's, ten times as fast, where PyYAML was built with it.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse(text: bytes, faults: list[Fault]) -> tuple[Any, dict[Place, yaml.Mark]]:
    """The data in `text`, and where each part of it stands."""
    places: dict[Place, yaml.Mark] = {}
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        faults.append(_no_yaml(error))
        return None, places
    try:
        node = loader.get_single_node()
        if node is None:
            faults.append(Fault(line=1, column=1, text="the file is empty; it takes version: 1"))
            return None, places
        _walk(node, (), places, faults, set())
        if faults:
            return None, places
        return loader.construct_document(node), places
    except yaml.YAMLError as error:
        faults.append(_no_yaml(error))
        return None, places
    finally:
        loader.dispose()


def _walk(
    node: yaml.Node,
    place: Place,
    places: dict[Place, yaml.Mark],
    faults: list[Fault],
    seen: set[int],
) -> None:
    places[place] = node.start_mark
    if id(node) in seen:
        # An alias of an alias of an alias is a file of a hundred bytes and gigabytes of data.
        faults.append(at(node.start_mark, "aliases aren't taken; name a profile instead"))
        return
    if isinstance(node, yaml.CollectionNode):
        seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                faults.append(at(key.start_mark, "a key is a plain word here"))
                continue
            if key.value in keys:
                faults.append(at(key.start_mark, f"{quote(key.value)} stands here twice"))
            keys.add(key.value)
            _walk(value, (*place, key.value), places, faults, seen)
            places[(*place, key.value, "key")] = key.start_mark
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            _walk(value, (*place, number), places, faults, seen)


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
    return Fault(line=1, column=1, text=f"this is no YAML: {error}")
