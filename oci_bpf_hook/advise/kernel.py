"""The kernel for which objects are examined."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..bpf.names import Enum
from ..values import Value

if TYPE_CHECKING:
    from ..bpf.btf import Buffer


class Kernel(Value):
    """`names` has every name that any kernel has, and `known` those that this kernel has.

    Both are by option, as `kernel.enums` returns them; `btf` is the kernel's BTF, or None.
    """

    __slots__ = ("btf", "known", "names")
    names: Mapping[str, Enum]
    known: Mapping[str, Enum]
    btf: "Buffer | None"


def union(one: Mapping[str, Enum], other: Mapping[str, Enum]) -> dict[str, Enum]:
    """The names of both: values are the kernel's ABI, and never change."""
    return {
        option: Enum(enum.kind, {**enum.values, **other[option].values})
        for option, enum in one.items()
    }
