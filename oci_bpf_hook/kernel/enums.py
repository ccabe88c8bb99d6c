"""Finds the running kernel's names for BPF: in its BTF, else in a C header or the shipped table.

The kernel itself takes the names for bpffs from its BTF, so where there is BTF it decides.
The values are the kernel's ABI and never change, so a header or a table of another
release can only lack names, or have some that this kernel lacks.
"""

import mmap
import posix

from ..bpf import btf
from ..bpf.names import Enum, Kind
from ..errors import USAGE, HookError
from ..files import CHARACTER_DEVICE, DIRECTORY, REGULAR, kind_of, read_all
from ..paths import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bpf.table import Table


VMLINUX = "/sys/kernel/btf/vmlinux"
# The most bytes of a header; the one that bpftool makes from a kernel's BTF has about 4 MB.
_LONGEST = 1 << 26
_ENUMS = f"{PACKAGE}/bpf_enums.json"


def enums(
    kinds: "Sequence[Kind]", *, header: str | None = None, vmlinux: str = VMLINUX
) -> dict[str, Enum]:
    """The enums of `kinds`, by their option's name.

    `header` is the C header to read if the kernel has no BTF at `vmlinux`.  Raises
    HookError (USAGE) if the header is needed and can't be read.
    """
    if not kinds:
        return {}
    try:
        return from_btf(kinds, vmlinux)
    except (OSError, btf.BtfError):
        return from_header(kinds, header) if header else table().enums(kinds)


def from_btf(kinds: "Sequence[Kind]", path: str = VMLINUX) -> dict[str, Enum]:
    """The enums of `kinds` in the BTF file `path`.  Raises OSError, BtfError."""
    return btf.enums(btf_in(path), kinds)


def btf_in(path: str = VMLINUX) -> "btf.Buffer":
    """The BTF in the file or pipe `path`.  Raises OSError, and BtfError for a device."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        # A device may never end; a pipe does.
        if kind_of(posix.fstat(fd)) == CHARACTER_DEVICE:
            raise btf.BtfError("it is a device")
        try:
            # Linux 6.16 (a539e2a6d51d) and later map it, only privately, which spares a 5 MB copy.
            return mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        except (OSError, ValueError):
            return _in_place(fd)
    finally:
        posix.close(fd)


def from_header(kinds: "Sequence[Kind]", path: str) -> dict[str, Enum]:
    """The enums of `kinds` in the C header `path`.  Raises HookError (USAGE)."""
    from ..bpf import header  # Most kernels have BTF, and don't need this.

    # The path is shown whole, so that people find the file, but it can't add a line to a log.
    shown = path if path.isprintable() else ascii(path)
    try:
        return header.enums(_read(path).decode("utf-8", "replace"), kinds)
    except OSError as error:
        raise HookError(USAGE, f"--header {shown}: {error.strerror}") from None
    except ValueError as error:  # A HeaderError is one.
        raise HookError(USAGE, f"--header {shown}: {error}") from None


def table() -> "Table":
    """The shipped table of names."""
    from ..bpf.table import Table  # Only messages need it, and kernels without BTF.

    return Table(_read(_ENUMS).decode("utf-8"))


def _read(path: str) -> bytes:
    """The content of the regular file `path`.  Raises OSError, and ValueError if it isn't one.

    Nothing else is read: a pipe would make us wait for its writer, and a device may never end.
    """
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        # Reading a directory fails with an error of its own.
        if kind_of(posix.fstat(fd)) not in (REGULAR, DIRECTORY):
            raise ValueError("not a regular file")
        return read_all(fd, _LONGEST)
    finally:
        posix.close(fd)


def _in_place(fd: int) -> bytes | bytearray:
    """The content of `fd` in a buffer of its size, since sysfs gives only a page for each read."""
    data = bytearray(posix.fstat(fd).st_size)
    size = 0
    with memoryview(data) as view:
        while count := posix.readv(fd, [view[size:]]):
            size += count
    return data if size and size == len(data) else read_all(fd)
