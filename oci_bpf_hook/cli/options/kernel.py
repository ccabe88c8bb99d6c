"""The options --kernel, --header and --btf, which name another kernel than the running one."""

import argparse

from ...bpf.btf import BtfError
from ...bpf.names import KINDS
from ...errors import KERNEL_CANNOT, USAGE, HookError, Problem
from ...kernel import enums as kernel
from ...kernel.releases import TOO_OLD, Source, of_enums, of_release, running
from .table import argument

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


def source(options: argparse.Namespace) -> Source:
    """The kernel that the command line means.  Raises HookError."""
    if options.kernel:
        return of_release(options.kernel)
    if options.header:
        enums = kernel.from_header(KINDS, options.header)
        return of_enums(options.header, enums)
    if options.btf:
        try:
            enums = kernel.from_btf(KINDS, options.btf)
        except OSError as error:
            raise _no_btf(options.btf, error.strerror) from None
        except BtfError as error:
            raise _no_btf(options.btf, error) from None
        return of_enums(options.btf, enums)
    return running()


def cannot(source: Source, hint: str | None = None) -> HookError:
    """The error that the hook ends with on a kernel without tokens, whatever the policy says."""
    why = f"{source.name} {TOO_OLD}"
    return HookError(KERNEL_CANNOT, Problem(why, key="--kernel", item=source.name, hint=hint))


def _no_btf(path: str, why: object) -> HookError:
    return HookError(USAGE, Problem(f"--btf {path}: {why}", key="--btf", item=path))
