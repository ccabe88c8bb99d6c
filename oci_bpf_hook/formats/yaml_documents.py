"""Reads other programs' YAML files, with the line and column of each value.

These files may have several documents, aliases and merges.  A file may be hostile, since whoever
reads it needn't have written it: whatever is in it, the result is the data or a fault.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from ..errors import quote
from ..text.places import Fault, Place, Spot, fault
from ..text.yaml_loader import LOADER, too_deep

_DEEPEST = 64
# The most places in a document; with aliases of aliases a file of a hundred bytes can mean
# gigabytes of data.
_MOST = 100_000
_MERGE = "tag:yaml.org,2002:merge"
# The errors that PyYAML's constructors raise for scalars that only look like a date or a number.
_ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def documents(text: bytes, faults: list[Fault]) -> list[tuple[Any, dict[Place, Spot]]]:
    """Every document in `text` that isn't empty, and the place of each part of it.

    What is wrong with any of them is added to `faults`, and then the result may be incomplete.
    """
    loader: yaml.SafeLoader | None = None
    found: list[tuple[Any, dict[Place, Spot]]] = []
    try:
        if deep := too_deep(text, _DEEPEST):
            raise yaml.MarkedYAMLError(None, None, "it is nested too deeply", deep)
        loader = LOADER(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # check_node has said so.
            spots = _spots(node, faults)
            data = None if faults else loader.construct_document(node)
            if data is not None:
                found.append((data, spots))
    except yaml.MarkedYAMLError as error:
        spot = _spot(error.problem_mark) if error.problem_mark else Spot(line=1, column=1)
        faults.append(fault(spot, f"this isn't YAML: {error.problem or error.context}"))
    except yaml.YAMLError as error:
        # It has a character that YAML doesn't take; the error's text has two lines.
        faults.append(_at_top(f"this isn't YAML: {' '.join(str(error).split())}"))
    except _ODD as error:
        faults.append(_at_top(f"a value in it can't be read: {error}"))
    finally:
        if loader:
            loader.dispose()
    return found


def _spots(node: yaml.Node, faults: list[Fault]) -> dict[Place, Spot]:
    """The place of each part of the document `node`."""
    found: dict[Place, Spot] = {}
    for number, (place, mark) in enumerate(_places(node, (), (), faults)):
        if number > _MOST:
            faults.append(
                _at(node.start_mark, "this is too large; does it have aliases of aliases?")
            )
            break
        found.setdefault(place, _spot(mark))
    return found


def _places(
    node: yaml.Node, place: Place, above: tuple[yaml.Node, ...], faults: list[Fault]
) -> Iterator[tuple[Place, yaml.Mark]]:
    """The place of everything in `node`; what overrides a merged mapping comes before it."""
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
                    faults.append(_at(key.start_mark, f"{quote(key.value)} is given twice"))
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
