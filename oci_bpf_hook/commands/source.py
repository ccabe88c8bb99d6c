"""Which kernel a command is asked about: the running one, or another by BTF, header, release."""

import argparse
import os
import re

from .. import kernel
from ..btf import BtfError
from ..errors import KERNEL_CANNOT, USAGE, HookError, quote
from ..names import KINDS, Enum
from ..record import Record
from .table import argument

# The first release with BPF tokens.
FIRST = (6, 9)
_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,3})(?:[.-].*)?")

ARGUMENTS = (
    argument(
        *("--kernel",),
        metavar="RELEASE",
        help="the kernel of this release, such as 6.12, from the table of this program",
        exclusive="source",
    ),
    argument(
        *("--header",),
        metavar="FILE",
        help="the kernel that this linux/bpf.h is from",
        exclusive="source",
    ),
    argument("--btf", metavar="FILE", help="the kernel that this BTF is from", exclusive="source"),
)


class Source(Record):
    """The names of a kernel; `name` says which, and `release` is None where nobody knows."""

    __slots__ = ("enums", "name", "release")
    name: str
    enums: dict[str, Enum]
    release: tuple[int, int] | None


def source(options: argparse.Namespace) -> Source:
    """The kernel that the command line means.  Raises HookError."""
    if options.kernel:
        return of_release(options.kernel)
    if options.header:
        enums = kernel.from_header(KINDS, options.header)
        return Source(name=options.header, enums=enums, release=None)
    if options.btf:
        try:
            enums = kernel.from_btf(KINDS, options.btf)
        except OSError as error:
            raise HookError(USAGE, f"--btf {options.btf}: {error.strerror}") from None
        except BtfError as error:
            raise HookError(USAGE, f"--btf {options.btf}: {error}") from None
        return Source(name=options.btf, enums=enums, release=None)
    return running()


def running() -> Source:
    """The kernel that runs here; without BTF its names are those of the table."""
    found = release(os.uname().release)
    return Source(name="this kernel", enums=kernel.enums(KINDS), release=found)


def of_release(text: str) -> Source:
    """The kernel of a release, by the shipped table.  Raises HookError."""
    found = release(text)
    if found is None:
        raise HookError(USAGE, f"{quote(text)} is no release of Linux; write it as 6.12")
    if found < FIRST:
        raise HookError(
            KERNEL_CANNOT, f"Linux {text} can't delegate BPF; it takes Linux 6.9 or later"
        )
    enums = kernel.table().enums(KINDS, release=found)
    return Source(name=f"Linux {found[0]}.{found[1]}", enums=enums, release=found)


def release(text: str) -> tuple[int, int] | None:
    """(6, 12) for "6.12", "6.12.3" or "6.12.3-amd64"; None for anything else."""
    match = _RELEASE.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None
