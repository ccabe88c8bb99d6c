"""values.py: values behave as the dataclasses they stand in for."""

import pytest

from oci_bpf_hook.values import Value


class Point(Value):
    __slots__ = ("x", "y")
    x: int
    y: int


class Size(Value):
    __slots__ = ("x", "y")
    x: int
    y: int


def test_fields_are_what_was_given() -> None:
    point = Point(y=2, x=1)
    assert (point.x, point.y) == (1, 2)


@pytest.mark.parametrize("fields", [{}, {"x": 1}, {"x": 1, "y": 2, "z": 3}, {"x": 1, "Y": 2}])
def test_other_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="Point takes"):
        Point(**fields)  # type: ignore[arg-type]


def test_the_type_checker_sees_every_constructor() -> None:
    """What it finds here it has to find: mypy, which is strict, reports a comment for nothing."""
    with pytest.raises(TypeError, match="Point takes"):
        Point(x=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Point takes"):
        Point(x=1, y=2, z=3)  # type: ignore[call-arg]
    point = Point(x="1", y=2)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="immutable"):
        point.x = 3  # type: ignore[misc]


def test_there_are_no_positional_fields() -> None:
    with pytest.raises(TypeError):
        Point(1, 2)  # type: ignore[call-arg]


def test_nothing_is_assigned_afterwards() -> None:
    point = Point(x=1, y=2)
    for name in ("x", "y", "z"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(point, name, 3)
    assert (point.x, point.y) == (1, 2)


def test_a_value_has_no_room_for_more() -> None:
    assert not hasattr(Point(x=1, y=2), "__dict__")


def test_equality_is_by_value_and_type() -> None:
    assert Point(x=1, y=2) == Point(y=2, x=1)
    assert Point(x=1, y=2) != Point(x=2, y=1)
    assert Point(x=1, y=2) != Size(x=1, y=2)
    assert Point(x=1, y=2) != (1, 2)


def test_equal_values_are_one_key() -> None:
    assert {Point(x=1, y=2): "a"}[Point(x=1, y=2)] == "a"
    assert len({Point(x=1, y=2), Point(x=1, y=2), Point(x=2, y=1)}) == 2


def test_a_value_with_a_mutable_field_is_no_key() -> None:
    with pytest.raises(TypeError):
        hash(Point(x=[], y=2))  # type: ignore[arg-type]


def test_repr_makes_an_equal_record() -> None:
    point = Point(x="a'b", y=None)  # type: ignore[arg-type]
    assert repr(point) == """Point(x="a'b", y=None)"""
    assert eval(repr(point), {"Point": Point}) == point
