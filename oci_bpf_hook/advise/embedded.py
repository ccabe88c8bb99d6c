"""BPF objects inside other files: libbpf skeletons and bpf2go embed them as they were compiled."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import elf
from .elf import MAGIC, ElfError

if TYPE_CHECKING:
    from ..bpf.btf import Buffer


def find(data: "Buffer") -> Iterator[tuple[int, bytes]]:
    """Every object in `data`, a file of any kind: where it begins, and its bytes.

    If the file is an object itself, that is the only one.  Bytes that only look like an object are
    skipped; an object that is cut off is returned as far as it goes, so that its reader complains.
    """
    if elf.is_object(data, 0):
        yield 0, bytes(data)
        return
    at = data.find(MAGIC)
    while at >= 0:
        end = _end(data, at)
        if end:
            yield at, bytes(data[at:end])
        # Objects don't overlap, and one that contains others was read as a whole.
        at = data.find(MAGIC, end or at + len(MAGIC))


def _end(data: "Buffer", start: int) -> int:
    """Where the object that begins at `start` ends; 0 if there is no object."""
    if not elf.is_object(data, start):
        return 0
    try:
        return min(elf.extent(data, start), len(data))
    except ElfError:
        return 0
