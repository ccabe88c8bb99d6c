"""The BPF names of a kernel: of the running one, or of a release in the shipped table."""

import errno
import os
import re

from ..bpf.btf import BtfError
from ..bpf.names import CMDS, KINDS, Enum
from ..errors import KERNEL_CANNOT, USAGE, HookError, Problem, quote
from ..values import Value
from . import enums as kernel

# The first release with BPF tokens.
FIRST = (6, 9)
_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,3})(?:[.-].*)?")


# The command that a kernel without tokens lacks.
_COMMAND = "token_create"
TOO_OLD = "can't delegate BPF; that takes Linux 6.9 or later"


class Source(Value):
    """The BPF names of the kernel called `name`; `release` is None if it isn't known.

    `tokens` says whether that kernel has BPF tokens, without which nothing can be delegated.
    """

    __slots__ = ("enums", "name", "release", "tokens")
    name: str
    enums: dict[str, Enum]
    release: tuple[int, int] | None
    tokens: bool


def running() -> Source:
    """The kernel that runs here; without BTF its names are taken from the table."""
    found = release(os.uname().release)
    try:
        enums = kernel.from_btf(KINDS)
        tokens = has_tokens(enums)
    except (OSError, BtfError):
        enums = kernel.table().enums(KINDS)
        tokens = _makes_tokens()
    return Source(name="this kernel", enums=enums, release=found, tokens=tokens)


def of_enums(name: str, enums: dict[str, Enum]) -> Source:
    """The kernel with these names, which are called `name`."""
    return Source(name=name, enums=enums, release=None, tokens=has_tokens(enums))


def has_tokens(enums: dict[str, Enum]) -> bool:
    """Whether the kernel with these names has BPF tokens."""
    return _COMMAND in enums[CMDS.option].values


def _makes_tokens() -> bool:
    """Whether this kernel knows the command; it is taken to know it if bpf(2) can't be tried."""
    from . import bpf  # This imports _ctypes, and most kernels have BTF.

    try:
        bpf.token_create(-1)
    except OSError as error:
        # A kernel that knows the command finds the fd to be none (EBADF).
        return error.errno not in (errno.EINVAL, errno.ENOSYS)
    return True


def of_release(text: str) -> Source:
    """The kernel of the release `text`, from the shipped table.  Raises HookError."""
    found = release(text)
    if found is None:
        raise _wrong(USAGE, text, f"{quote(text)} isn't a release of Linux", "write it as 6.12")
    if found < FIRST:
        why = f"Linux {text} can't delegate BPF"
        raise _wrong(KERNEL_CANNOT, text, why, "that takes Linux 6.9 or later")
    enums = kernel.table().enums(KINDS, release=found)
    return Source(name=f"Linux {found[0]}.{found[1]}", enums=enums, release=found, tokens=True)


def _wrong(code: int, release: str, why: str, hint: str) -> HookError:
    return HookError(code, Problem(why, key="--kernel", item=release, hint=hint))


def release(text: str) -> tuple[int, int] | None:
    """(6, 12) for "6.12", "6.12.3" or "6.12.3-amd64"; None for anything else."""
    match = _RELEASE.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None
