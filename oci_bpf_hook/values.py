"""The base class of small immutable values, cheap enough for what runs before a container starts.

`dataclasses` and `typing.NamedTuple` would do the same, but importing them takes longer
than the whole hook may.  A subclass names its fields in `__slots__`,
declares their types in the class body, and is made with keywords:

    class Point(Value):
        __slots__ = ("x", "y")
        x: int
        y: int

    Point(x=1, y=2)

The type checker checks that every field is given, no other is, and each has its type.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import dataclass_transform
else:

    def dataclass_transform(**_: bool) -> "Callable[[type], type]":
        """Does nothing at run time; only the type checker uses it, and importing typing is slow."""
        return lambda made: made


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value:
    """Fields by keyword, equality by value, no assignment afterwards."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, **fields: object) -> None:
        names = self.__slots__
        complete = len(fields) == len(names)
        put = object.__setattr__
        try:
            for name in names:
                put(self, name, fields[name])
        except KeyError:
            complete = False
        if not complete:
            raise TypeError(f"{type(self).__name__} takes {names}, not {tuple(fields)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def _values(self) -> tuple[object, ...]:
        return tuple(map(self.__getattribute__, self.__slots__))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(self) is not type(other):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        fields = map("{}={!r}".format, self.__slots__, self._values())
        return f"{type(self).__name__}({', '.join(fields)})"
