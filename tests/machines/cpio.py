"""A cpio archive as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format).

Not compressed: to copy it takes the machine less time than to decompress it.
"""

import os
import stat
from pathlib import Path


def archive(root: Path) -> bytes:
    """Everything below the directory `root`: directories, files and symbolic links, root's."""
    parts: list[bytes] = []
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = Path(directory, name)
            parts.append(_entry(len(parts) + 1, path, str(path.relative_to(root))))
    parts.append(_record(0, "TRAILER!!!", 0, 0, b""))
    return b"".join(parts)


def _entry(number: int, path: Path, name: str) -> bytes:
    status = path.lstat()
    data = b""
    if stat.S_ISLNK(status.st_mode):
        data = os.fsencode(os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        data = path.read_bytes()
    return _record(number, name, status.st_mode, int(status.st_mtime), data)


def _record(number: int, name: str, mode: int, mtime: int, data: bytes) -> bytes:
    # Inode, mode, uid, gid, links, mtime, size, two devices of two numbers, the name's size, check.
    encoded = os.fsencode(name) + b"\0"
    fields = (number, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
