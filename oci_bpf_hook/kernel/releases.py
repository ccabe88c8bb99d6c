"""The BPF names of a kernel: of the running one, or of a release in the shipped table."""

import os
import re

from ..bpf.names import KINDS, Enum
from ..errors import KERNEL_CANNOT, USAGE, HookError, Problem, quote
from ..values import Value
from . import enums as kernel

# The first release with BPF tokens.
FIRST = (6, 9)
_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,3})(?:[.-].*)?")


class Source(Value):
    """The BPF names of the kernel called `name`; `release` is None if it isn't known."""

    __slots__ = ("enums", "name", "release")
    name: str
    enums: dict[str, Enum]
    release: tuple[int, int] | None


def running() -> Source:
    """The kernel that runs here; without BTF its names are taken from the table."""
    found = release(os.uname().release)
    return Source(name="this kernel", enums=kernel.enums(KINDS), release=found)


def of_release(text: str) -> Source:
    """The kernel of the release `text`, from the shipped table.  Raises HookError."""
    found = release(text)
    if found is None:
        raise _wrong(USAGE, text, f"{quote(text)} isn't a release of Linux", "write it as 6.12")
    if found < FIRST:
        why = f"Linux {text} can't delegate BPF"
        raise _wrong(KERNEL_CANNOT, text, why, "that takes Linux 6.9 or later")
    enums = kernel.table().enums(KINDS, release=found)
    return Source(name=f"Linux {found[0]}.{found[1]}", enums=enums, release=found)


def _wrong(code: int, release: str, why: str, hint: str) -> HookError:
    return HookError(code, Problem(why, key="--kernel", item=release, hint=hint))


def release(text: str) -> tuple[int, int] | None:
    """(6, 12) for "6.12", "6.12.3" or "6.12.3-amd64"; None for anything else."""
    match = _RELEASE.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None
