"""BPF objects inside other files: libbpf skeletons and bpf2go embed them as they were compiled."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import elf
from .elf import MAGIC, ElfError

if TYPE_CHECKING:
    from ..btf import Buffer


def find(data: "Buffer") -> Iterator[tuple[int, bytes]]:
    """Every object in `data`, a file of any kind: where it begins, and its bytes.

    A file that is one itself is the only one.  What only looks like one is left out; what is one
    but for its end is given as far as it goes, for its reader to complain about.
    """
    if elf.is_object(data, 0):
        yield 0, bytes(data)
        return
    at = data.find(MAGIC)
    while at >= 0:
        end = _end(data, at)
        if end:
            yield at, bytes(data[at:end])
        # Objects don't overlap, and what is in one has been seen.
        at = data.find(MAGIC, end or at + len(MAGIC))


def _end(data: "Buffer", start: int) -> int:
    """Where the object that begins at `start` ends; 0 if it's none."""
    if not elf.is_object(data, start):
        return 0
    try:
        return min(elf.extent(data, start), len(data))
    except ElfError:
        return 0
