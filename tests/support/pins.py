"""What the guard has pinned, as far as any kernel has it: maps of its forms, and no programs.

Nothing is in force by that; it is for what opens, reads and takes away what is pinned.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.lsm.libbpf import Libbpf
from oci_bpf_hook.guard.lsm.load import EVENTS, MAPS
from oci_bpf_hook.kernel import bpf
from oci_bpf_hook.paths import BPFFS, GUARD

from .systemd import run

ARRAY = 2
_QUEUE = 22
# BPF_MAP_CREATE: type, sizes of key and value, entries.
_CREATE = Struct("=IIII")
# struct refusal.
_EVENT = 80


@contextmanager
def bpffs() -> Iterator[Path]:
    """An empty bpffs at the place of the host's, for this process's mount namespace."""
    run("mount", "-t", "bpf", "-o", "mode=0700", "bpf", BPFFS)
    try:
        yield Path(BPFFS)
    finally:
        run("umount", "--lazy", BPFFS)


def pin(directory: str = GUARD) -> None:
    """Pin what looks like a guard of version 0, with an empty queue, in `directory`."""
    os.makedirs(directory, mode=0o700)
    os.chmod(os.path.dirname(directory), 0o700)
    library = Libbpf()
    for name in (*guard.LINKS, *MAPS):
        fd = _map(_QUEUE, 0, _EVENT) if name == EVENTS else _map(ARRAY, 4, guard.CONFIG_VALUE.size)
        assert library.obj_pin(fd, f"{directory}/{name}".encode()) == 0
        os.close(fd)


def _map(kind: int, key: int, value: int) -> int:
    attr = _CREATE.pack(kind, key, value, 1)
    return bpf._bpf(bpf.BPF_MAP_CREATE, attr)
