"""`oci-bpf-hook kernel`: the names that a kernel can delegate."""

import argparse
import json

from .. import kernel
from ..btf import BtfError
from ..errors import DONE, KERNEL_CANNOT, USAGE, HookError
from ..names import KINDS, Enum
from .table import argument

ARGUMENTS = (
    argument("--btf", metavar="FILE", help="of the kernel with this BTF", exclusive="source"),
    argument(
        *("--header",),
        metavar="FILE",
        help="of the kernel with this linux/bpf.h",
        exclusive="source",
    ),
    argument(
        *("--table",),
        action="store_true",
        help="of all kernels in the shipped table",
        exclusive="source",
    ),
    argument("--json", action="store_true", help="as JSON"),
)


def run(options: argparse.Namespace) -> int:
    enums = _enums(options)
    if options.json:
        print(json.dumps({option: enum.values for option, enum in enums.items()}, indent=2))
        return DONE
    for kind in KINDS:
        print(f"{kind.option} (enum {kind.enum})")
        for name, value in enums[kind.option].values.items():
            print(f"  {value:2}  {name}")
    return DONE


def _enums(options: argparse.Namespace) -> dict[str, Enum]:
    if options.header:
        return kernel.from_header(KINDS, options.header)
    if options.table:
        return kernel.table().enums(KINDS)
    path = options.btf or kernel.VMLINUX
    try:
        return kernel.from_btf(KINDS, path)
    except (OSError, BtfError) as error:
        if options.btf:
            raise HookError(USAGE, f"--btf {path}: {error}") from None
        raise HookError(
            KERNEL_CANNOT, f"this kernel has no BTF ({error}); try --header or --table"
        ) from None
