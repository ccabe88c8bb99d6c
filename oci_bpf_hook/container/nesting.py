"""How user namespaces nest: what is around a container's own, and whose that is.

The broker asks that about its peers, and the commands about running containers.  A container that
is about to start needs none of it.
"""

import fcntl
import posix

from .failure import unreachable
from .namespaces import INITIAL_USER_NAMESPACE, Process, owner_of, read_at, request

# _IO(0xb7, 2) (Linux: include/uapi/linux/nsfs.h).
_NS_GET_PARENT = 0xB702


def is_within(namespace: int, above: int) -> bool:
    """Whether the open user `namespace` has the inode number `above`, or was made within that one.

    The caller has to be in the initial user namespace.  Raises OSError.
    """
    here = posix.dup(namespace)
    try:
        # The kernel nests them at most 32 deep.
        while (inode := posix.fstat(here).st_ino) not in (above, INITIAL_USER_NAMESPACE):
            parent = fcntl.ioctl(here, request(_NS_GET_PARENT))
            posix.close(here)
            here = parent
        return inode == above
    finally:
        posix.close(here)


def is_nested(process: Process) -> bool:
    """Whether the process's user namespace was made within one that isn't ours.  Raises OSError."""
    try:
        parent = fcntl.ioctl(process.user, request(_NS_GET_PARENT))
    except PermissionError:
        # The kernel doesn't show us a parent above our own user namespace.
        return False
    try:
        there, ours = posix.fstat(parent), posix.stat("/proc/self/ns/user")
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
    finally:
        posix.close(parent)


def outermost_owner(process: Process) -> int:
    """The user who made the outermost user namespace around `process`.

    Everything further inside was made with that user's rights.  The rest is as for `outermost`.
    """
    return outermost(process)[1]


def outermost(process: Process) -> tuple[int, int]:
    """The inode number and the owner of the outermost user namespace around `process`.

    That is the one just below the initial one, in which the caller has to be.  Raises OSError.
    """
    namespace = posix.dup(process.user)
    try:
        # The kernel nests them at most 32 deep.
        while True:
            parent = fcntl.ioctl(namespace, request(_NS_GET_PARENT))
            if posix.fstat(parent).st_ino == INITIAL_USER_NAMESPACE:
                posix.close(parent)
                return posix.fstat(namespace).st_ino, owner_of(namespace)
            posix.close(namespace)
            namespace = parent
    finally:
        posix.close(namespace)


def id_map(process: Process, name: str) -> list[tuple[int, int]]:
    """The ids outside that are mapped in the user namespace of `process`, as (first, count).

    `name` is "uid" or "gid".  Raises HookError (BAD_STATE).
    """
    try:
        lines = read_at(process.proc, f"{name}_map").decode("ascii").splitlines()
    except OSError as error:
        raise unreachable(None, error) from None
    return [(int(first), int(count)) for _, first, count in map(str.split, lines)]
