"""YAML as other programs' files have it: several documents, aliases and merges, with places.

Whatever is in it, what comes out is the data or a fault: whoever wrote a file needn't be whoever
looks at it.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from ..errors import quote
from ..text.places import Fault, Place, Spot, fault
from ..text.yaml_loader import LOADER, too_deep

_DEEPEST = 64
# So many places at most: an alias of an alias of an alias is a file of a hundred bytes and
# gigabytes of data.
_MOST = 100_000
_MERGE = "tag:yaml.org,2002:merge"
# What PyYAML's constructors raise for scalars that only look like a date or a number.
_ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def documents(text: bytes, faults: list[Fault]) -> list[tuple[Any, dict[Place, Spot]]]:
    """Every document in `text` that isn't empty, and where each part of it stands.

    What is wrong with any of them goes to `faults`, and then nothing is sure to come back.
    """
    loader: yaml.SafeLoader | None = None
    found: list[tuple[Any, dict[Place, Spot]]] = []
    try:
        if deep := too_deep(text, _DEEPEST):
            raise yaml.MarkedYAMLError(None, None, "it is nested too deeply", deep)
        loader = LOADER(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # check_node looked.
            spots = _spots(node, faults)
            data = None if faults else loader.construct_document(node)
            if data is not None:
                found.append((data, spots))
    except yaml.MarkedYAMLError as error:
        spot = _spot(error.problem_mark) if error.problem_mark else Spot(line=1, column=1)
        faults.append(fault(spot, f"this is no YAML: {error.problem or error.context}"))
    except yaml.YAMLError as error:
        # A character that none may have; what it says of it takes two lines.
        faults.append(_at_top(f"this is no YAML: {' '.join(str(error).split())}"))
    except _ODD as error:
        faults.append(_at_top(f"a value in it can't be read: {error}"))
    finally:
        if loader:
            loader.dispose()
    return found


def _spots(node: yaml.Node, faults: list[Fault]) -> dict[Place, Spot]:
    """Where each part of the document `node` stands."""
    found: dict[Place, Spot] = {}
    for number, (place, mark) in enumerate(_places(node, (), (), faults)):
        if number > _MOST:
            faults.append(_at(node.start_mark, "this is too much; aliases of aliases?"))
            break
        found.setdefault(place, _spot(mark))
    return found


def _places(
    node: yaml.Node, place: Place, above: tuple[yaml.Node, ...], faults: list[Fault]
) -> Iterator[tuple[Place, yaml.Mark]]:
    """The place of everything in `node`, a merged mapping's behind what overrides it."""
    yield place, node.start_mark
    if any(node is one for one in above):
        faults.append(_at(node.start_mark, "this is a part of itself"))
        return
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _places(value, (*place, number), above, faults)
    elif isinstance(node, yaml.MappingNode):
        merged: list[yaml.Node] = []
        keys: set[str] = set()
        for key, value in node.value:
            if key.tag == _MERGE:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif not isinstance(key, yaml.ScalarNode):
                faults.append(_at(key.start_mark, "a key is a plain word here"))
            else:
                if key.value in keys:
                    faults.append(_at(key.start_mark, f"{quote(key.value)} stands here twice"))
                keys.add(key.value)
                yield (*place, key.value, "key"), key.start_mark
                yield from _places(value, (*place, key.value), above, faults)
        for one in merged:
            yield from _places(one, place, above, faults)


def _spot(mark: yaml.Mark) -> Spot:
    return Spot(line=mark.line + 1, column=mark.column + 1)


def _at(mark: yaml.Mark, text: str) -> Fault:
    return fault(_spot(mark), text)


def _at_top(text: str) -> Fault:
    return Fault(line=1, column=1, text=text)
