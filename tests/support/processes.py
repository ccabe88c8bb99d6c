"""What /proc says of a process, and its end."""

import os
import select
from collections.abc import Iterable
from pathlib import Path


def children(pid: int) -> list[int]:
    """The processes that its first thread has made."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident(pid: int) -> int:
    """Its resident memory, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS:"))
    return int(line.split()[1])


def wait_until_gone(pids: Iterable[int], *, seconds: float = 30) -> None:
    """Wait until these processes have ended, whoever's children they are."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([pidfd], [], [], seconds)[0], f"process {pid} stays"
        finally:
            os.close(pidfd)
