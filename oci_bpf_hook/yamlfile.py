"""YAML as people write it, with the place of every value, so that a fault can be shown.

Only plain data: what the safe loader takes, without a key twice; in our own file without aliases
too, which is where they can only hurt.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from .errors import quote
from .places import Fault, Place, Spot

# libyaml's, ten times as fast, where PyYAML was built with it.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# So many places at most: an alias of an alias of an alias is a file of a hundred bytes and
# gigabytes of data.
_MOST = 100_000
# What PyYAML's constructors raise for scalars that only look like a date or a number.
_ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError)


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
    except RecursionError:
        faults.append(Fault(line=1, column=1, text="this is nested too deeply"))
        return None, places
    except _ODD as error:
        faults.append(Fault(line=1, column=1, text=f"a value in it can't be read: {error}"))
        return None, places
    finally:
        loader.dispose()


def documents(text: bytes, faults: list[Fault]) -> list[tuple[Any, dict[Place, Spot]]]:
    """Every document in `text` that isn't empty, and where each part of it stands.

    Takes aliases and merges, as other programs' files have them.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        faults.append(_no_yaml(error))
        return []
    found: list[tuple[Any, dict[Place, Spot]]] = []
    try:
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # check_node looked.
            places: dict[Place, Spot] = {}
            for number, (place, mark) in enumerate(_places(node, (), (), faults)):
                places.setdefault(place, Spot(line=mark.line + 1, column=mark.column + 1))
                if number > _MOST:
                    faults.append(at(node.start_mark, "this is too much; aliases of aliases?"))
                    return []
            data = None if faults else loader.construct_document(node)
            if data is not None:
                found.append((data, places))
    except yaml.YAMLError as error:
        faults.append(_no_yaml(error))
    except RecursionError:
        faults.append(Fault(line=1, column=1, text="this is nested too deeply"))
    except _ODD as error:
        faults.append(Fault(line=1, column=1, text=f"a value in it can't be read: {error}"))
    finally:
        loader.dispose()
    return found


def _places(
    node: yaml.Node, place: Place, above: tuple[yaml.Node, ...], faults: list[Fault]
) -> Iterator[tuple[Place, yaml.Mark]]:
    """The place of everything in `node`, a merged mapping's behind what overrides it."""
    yield place, node.start_mark
    if any(node is one for one in above):
        faults.append(at(node.start_mark, "this is a part of itself"))
        return
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _places(value, (*place, number), above, faults)
    if not isinstance(node, yaml.MappingNode):
        return
    merged: list[yaml.Node] = []
    keys: set[str] = set()
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            continue
        if not isinstance(key, yaml.ScalarNode):
            faults.append(at(key.start_mark, "a key is a plain word here"))
            continue
        if key.value in keys:
            faults.append(at(key.start_mark, f"{quote(key.value)} stands here twice"))
        keys.add(key.value)
        yield (*place, key.value, "key"), key.start_mark
        yield from _places(value, (*place, key.value), above, faults)
    for one in merged:
        yield from _places(one, place, above, faults)


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
    # A character that none may have; what it says of it takes two lines.
    return Fault(line=1, column=1, text=f"this is no YAML: {' '.join(str(error).split())}")
