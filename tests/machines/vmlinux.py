"""The kernel within a vmlinuz, which is a program that decompresses it.

A machine without hardware virtualisation takes 1 to 4 seconds for that at every boot, and this host
a third of a second once.  QEMU boots the ELF file inside by its PVH entry.
"""

import struct
import subprocess
from typing import Final

# Of the setup header, Documentation/arch/x86/boot.rst.
_SETUP_SECTORS: Final = 0x1F1
_MAGIC: Final = 0x202
_PAYLOAD: Final = 0x248
_SECTOR: Final = 512
# What Debian compresses kernels with, by how it begins.
_DECOMPRESS: Final = {
    b"\xfd7zXZ\x00": ("xz", "-dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-qdc"),
    b"\x02\x21\x4c\x18": ("lz4", "-qdc"),
}


class VmlinuzError(ValueError):
    """This is no vmlinuz that can be taken apart."""


def extract(vmlinuz: bytes) -> bytes:
    """The ELF file in `vmlinuz`.  Raises VmlinuzError."""
    if vmlinuz[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise VmlinuzError("no setup header of an x86 kernel")
    # 0 stands for 4, and the boot sector comes first.
    sectors = (vmlinuz[_SETUP_SECTORS] or 4) + 1
    offset, length = struct.unpack_from("<II", vmlinuz, _PAYLOAD)
    start = sectors * _SECTOR + offset
    payload = vmlinuz[start : start + length]
    for magic, command in _DECOMPRESS.items():
        if payload.startswith(magic):
            # The last four bytes are the size that it has then.
            done = subprocess.run(command, input=payload[:-4], capture_output=True, check=False)
            if done.returncode or not done.stdout.startswith(b"\x7fELF"):
                raise VmlinuzError(f"{command[0]}: {done.stderr.decode().strip() or 'no ELF file'}")
            return done.stdout
    raise VmlinuzError(f"compressed in an unknown way, which begins with {payload[:6].hex()}")
