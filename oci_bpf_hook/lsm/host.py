"""What the guard has to know of the host before anything is written there."""

from ..errors import KERNEL_CANNOT, HookError
from ..guard import is_roots


def require_own(directory: str) -> None:
    """Raise HookError where somebody else may have put links for us to follow in `directory`.

    A bpffs that was mounted without a mode is everybody's to write to (kernel/bpf/inode.c,
    bpf_fill_super), and who comes first has the name.
    """
    try:
        mine = is_roots(directory)
    except FileNotFoundError:
        return
    if not mine:
        raise HookError(
            KERNEL_CANNOT,
            f"{directory} isn't root's own directory, and the guard isn't pinned among the names "
            "of somebody else; see who made it, and remove it, or chmod it to 0700 if that was you",
        )


def require_lsms(path: str) -> None:
    """Raise HookError where the file at `path`, which names the LSMs in force, can't be read.

    Where bpf isn't among them, what is written for a mark is written into what another LSM has
    with the inode: nothing has given bpf a place of its own (include/linux/bpf_lsm.h, bpf_inode).
    """
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise HookError(
            KERNEL_CANNOT,
            f"nobody says whether bpf is among this host's LSMs: {path} can't be read "
            f"({error.strerror}); mount -t securityfs securityfs /sys/kernel/security",
        ) from None
