"""Checks what has to be true of the host before the guard is pinned there."""

from ...errors import KERNEL_CANNOT, HookError
from ..pinned import is_roots


def require_own(directory: str) -> None:
    """Raise HookError if others may have put links into `directory`, which we would follow.

    Everybody can write to a bpffs that was mounted without a mode (Linux: kernel/bpf/inode.c,
    bpf_fill_super), and so can take a name in it before root does.
    """
    try:
        mine = is_roots(directory)
    except FileNotFoundError:
        return
    if not mine:
        raise HookError(
            KERNEL_CANNOT,
            f"{directory} isn't root's own directory, and the guard isn't pinned among names that "
            "others may have made; see who made it, and remove it, or if that was you, chmod it to "
            "0700",
        )


def require_lsms(path: str) -> None:
    """Raise HookError unless the file at `path`, which names the LSMs in force, can be read.

    If bpf isn't among them, a mark would overwrite what another LSM keeps with the inode, because
    the kernel has reserved no space for bpf there (Linux: include/linux/bpf_lsm.h, bpf_inode).
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise HookError(
            KERNEL_CANNOT,
            f"it isn't known whether bpf is among this host's LSMs: {path} can't be read "
            f"({error.strerror}); mount -t securityfs securityfs /sys/kernel/security",
        ) from None
