"""The line and column of each value of a YAML document, looked up when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..text.places import Place, Spot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import yaml

    # For each key of a mapping, or index of a sequence, the mark of the key and of the value.
    Marks = dict[str | int, tuple[yaml.Mark, yaml.Mark]]


class Places(Mapping[Place, Spot]):
    """The spots in the document `data`; with "key" after its path, a key has one too.

    `root` is the document's own spot, and `marks` has those in each mapping and sequence, by id().
    """

    def __init__(self, data: Any, root: Spot, marks: Mapping[int, Marks]) -> None:
        self._data = data
        self._root = root
        self._marks = marks

    def __getitem__(self, place: Place) -> Spot:
        if not place:
            return self._root
        *above, last = place
        marks = self._marks_of(above)
        if last in marks:
            mark = marks[last][1]
        elif last == "key" and above and isinstance(above[-1], str):
            mark = self._marks_of(above[:-1])[above[-1]][0]
        else:
            raise KeyError(place)
        return Spot(line=mark.line + 1, column=mark.column + 1)

    def __iter__(self) -> Iterator[Place]:
        left: list[Place] = [()]
        while left:
            place = left.pop()
            yield place
            for key in self._marks_of(place):
                left.append((*place, key))
                if isinstance(key, str):
                    yield (*place, key, "key")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _marks_of(self, place: Place | list[str | int]) -> Marks:
        """The marks in the mapping or sequence at `place`; none if it is neither."""
        data = self._data
        for key in place:
            try:
                data = data[key]
            except (KeyError, IndexError, TypeError):
                return {}
        return self._marks.get(id(data), {}) if isinstance(data, (dict, list)) else {}
