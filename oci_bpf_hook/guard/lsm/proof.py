"""Finds out whether the guard works on this kernel, by trying it.

Programs can be attached to an LSM's hooks even if the kernel never calls them, because `bpf` isn't
in its list of LSMs.  So a scratch user namespace gets a confined bpffs, as a container does.  A
program that returns 0 has to load through it, and two programs must be refused by the guard: one
that calls a kernel function that doesn't exist, which the verifier refuses by another error, and
one of a type that takes CAP_PERFMON, which the scratch namespace has.
"""

import sys
from errno import EPERM
from struct import Struct

from ...errors import KERNEL_CANNOT, HookError
from ...kernel import bpf
from ...mount.scratch import ATTACH_0, SOCKET_FILTER, TRACEPOINT, Scratch, masks
from ..pinned import Guard

# Two instructions: call kernel function 0, and exit.  One byte has both registers; src_reg, which
# marks a call of a kernel function, is in the upper half of it on little-endian machines, and in
# the lower half on others.
_KFUNC_CALL = 2 << 4 if sys.byteorder == "little" else 2
_NO_FUNCTION = Struct("=BBhiBBhi").pack(0x85, _KFUNC_CALL, 0, 0, 0x95, 0, 0, 0)


def prove(guard: Guard) -> None:
    """Raise HookError (KERNEL_CANNOT) unless `guard`, whose programs are attached, works."""
    with Scratch(use=_try) as scratch:
        wrong = scratch.failed or scratch.delegate(masks(TRACEPOINT), guard=guard) or scratch.use()
    if wrong:
        raise HookError(
            KERNEL_CANNOT,
            f"the guard doesn't work on this kernel, so it isn't turned on: {wrong}",
        )


def _try(token: int) -> str:
    """What is wrong, seen from a process of the scratch namespace with a confined `token`."""
    try:
        bpf.prog_load(SOCKET_FILTER, ATTACH_0, token)
    except OSError as error:
        return f"a program that does nothing isn't loaded any more ({error.strerror})"
    if _outcome(SOCKET_FILTER, token, _NO_FUNCTION) != EPERM:
        return "calls of kernel functions aren't refused; is bpf among the kernel's LSMs?"
    if _outcome(TRACEPOINT, token) != EPERM:
        return "CAP_PERFMON still counts"
    return ""


def _outcome(kind: int, token: int, code: bytes = bpf.RETURN_0) -> int:
    try:
        bpf.prog_load(kind, ATTACH_0, token, code)
    except OSError as error:
        return error.errno or 0
    return 0
