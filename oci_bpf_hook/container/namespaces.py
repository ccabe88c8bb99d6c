"""A container that is about to start, held by its namespaces.

A pid may come to name another process.  So one directory fd on /proc/PID is opened and used for
everything: like a pidfd, it stays with the process that it was opened for, and fails once that
process has gone.  The namespaces are then held by fds of their own, and exactly these are checked
and joined.

The process that looks may be the host's root, a rootless engine in a user namespace of its own,
which it may share with its containers, or a hook that is in the container already.
"""

import fcntl
import posix
from _struct import Struct

from ..errors import BAD_STATE, NO_USER_NAMESPACE, HookError
from ..files import MOUNTINFO_MAX, read_all
from ..kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


# The initial user namespace's inode number (Linux: include/linux/proc_ns.h, PROC_USER_INIT_INO).
INITIAL_USER_NAMESPACE = 0xEFFFFFFD
# _IO(0xb7, 1) and _IO(0xb7, 4) (Linux: include/uapi/linux/nsfs.h).  On the architectures below
# _IO adds 1 << 29 to the number (Linux: arch/*/include/uapi/asm/ioctl.h).
_NS_GET_USERNS = 0xB701
_NS_GET_OWNER_UID = 0xB704
_IOC_NONE_IS_1 = ("mips", "ppc", "sparc")
_UID = Struct("I")
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


def is_initial(namespace: int | None = None) -> bool:
    """Whether this process, or the open `namespace`, is in the initial user namespace.

    BPF is delegated only from there.
    """
    try:
        status = posix.stat("/proc/self/ns/user") if namespace is None else posix.fstat(namespace)
    except FileNotFoundError:
        raise HookError(
            BAD_STATE, "/proc is missing, and the hook finds the container through it"
        ) from None
    return status.st_ino == INITIAL_USER_NAMESPACE


def owner_of(namespace: int) -> int:
    """The user, by the host's ids, who made the open user `namespace`.

    Raises OSError if it isn't a user namespace.
    """
    (uid,) = _UID.unpack(fcntl.ioctl(namespace, request(_NS_GET_OWNER_UID), bytes(_UID.size)))
    assert isinstance(uid, int)
    return uid


def owning(namespace: int) -> int:
    """An fd on the user namespace that the open `namespace` belongs to, for the caller to close.

    Raises OSError; PermissionError if that is neither our user namespace nor one below it.
    """
    return fcntl.ioctl(namespace, request(_NS_GET_USERNS))


def user_namespace_of(namespace: int) -> tuple[int, int]:
    """The device and inode of the user namespace that the open `namespace` belongs to.

    Raises OSError; PermissionError if that is neither our user namespace nor one below it.
    """
    owner = owning(namespace)
    try:
        return _identity(posix.fstat(owner))
    finally:
        posix.close(owner)


class Process:
    """Owns `proc` (/proc/PID), `user` and `mount` (its namespaces), to be used in a `with`.

    `joins_user` and `joins_mount` say whether these namespaces differ from our own, and `from_host`
    whether we are in the initial user namespace.
    """

    def __init__(self, pid: int | None) -> None:
        """Open the process `pid`, or this process if that is None.  Raises HookError."""
        self._open: list[int] = []
        try:
            self.proc = self._keep(posix.open(f"/proc/{pid or 'self'}", _DIRECTORY))
            self.user = self._keep(_open_at(self.proc, "ns/user"))
            self.mount = self._keep(_open_at(self.proc, "ns/mnt"))
            self._user_id = _identity(posix.fstat(self.user))
            self._mount_id = _identity(posix.fstat(self.mount))
            ours = posix.stat("/proc/self/ns/user")
            self.from_host = ours.st_ino == INITIAL_USER_NAMESPACE
            self.joins_user = self._user_id != _identity(ours)
            self.joins_mount = self._mount_id != _identity(posix.stat("/proc/self/ns/mnt"))
            self._check(inside=pid is None)
        except OSError as error:
            self.close()
            from .failure import unreachable

            raise unreachable(pid, error) from None
        except HookError:
            self.close()
            raise

    def _check(self, *, inside: bool) -> None:
        """Raise HookError or OSError if the process isn't of the expected kind."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all fds."""
        while self._open:
            posix.close(self._open.pop())

    def alive(self) -> bool:
        """Whether the process is still there, in the namespaces that were opened."""
        try:
            return (
                _identity(posix.stat("ns/mnt", dir_fd=self.proc)) == self._mount_id
                and _identity(posix.stat("ns/user", dir_fd=self.proc)) == self._user_id
            )
        except OSError:
            return False

    def is_in(self, user: int, mount: int) -> bool:
        """Whether its user and mount namespaces have these inode numbers."""
        return (self._user_id[1], self._mount_id[1]) == (user, mount)

    def user_inode(self) -> int:
        """The inode number of its user namespace."""
        return self._user_id[1]

    def is_on_host(self) -> bool:
        """Whether it is in the initial user namespace."""
        return self._user_id[1] == INITIAL_USER_NAMESPACE

    def owns_its_mounts(self) -> bool:
        """Whether its mount namespace belongs to its user namespace.  Raises OSError."""
        # Whoever owns a mount namespace decides what is mounted there.  So it is the container's
        # own only if it belongs to the container's user namespace.
        return user_namespace_of(self.mount) == self._user_id

    def owner(self) -> int:
        """The user, by the host's ids, who made the container's user namespace."""
        return owner_of(self.user)

    def has_host_network(self) -> bool:
        """Whether its network namespace belongs to another user namespace than its own.

        Raises HookError (BAD_STATE).
        """
        try:
            network = _open_at(self.proc, "ns/net")
            try:
                return user_namespace_of(network) != self._user_id
            finally:
                posix.close(network)
        except PermissionError:
            # The network namespace belongs neither to our user namespace nor to one below it.
            return True
        except OSError as error:
            from .failure import unreachable

            raise unreachable(None, error) from None

    def sees_host_cgroups(self, root: str | None) -> bool:
        """Whether a cgroup2 below its root filesystem at `root` shows more than its own cgroup.

        If `root` is None, the whole mount namespace is searched.  BPF programs attach to any cgroup
        directory that can be opened, and opening one for reading needs no privilege.  Raises
        HookError (BAD_STATE).
        """
        try:
            rootfs = None if root is None else str(self._mount_of(root))
            mountinfo = read_at(self.proc, "mountinfo").decode("utf-8", "surrogateescape")
            cgroups = read_at(self.proc, "cgroup").decode("utf-8", "surrogateescape")
        except OSError as error:
            raise HookError(BAD_STATE, f"the container's mounts can't be read: {error}") from None
        own = next((line[3:] for line in cgroups.split("\n") if line.startswith("0::")), "/")
        parents: dict[str, str] = {}
        shown: dict[str, str] = {}
        for line in mountinfo.split("\n"):
            # ID parent major:minor root point flags [optional]... - type source options
            fields, _, tail = line.partition(" - ")
            if fields:
                identity, parents[identity], _, top, *_ = fields.split(" ")
                if tail.startswith("cgroup2 "):
                    # We aren't in the container's cgroup namespace, so this is the real path.
                    shown[identity] = top
        for identity, top in shown.items():
            if own == "/" or not f"{top}/".startswith(f"{own}/"):
                above = identity
                # The root of an initramfs is mounted on itself, and a file that changes while it is
                # read may show other circles.  So the loop ends after as many steps as there are
                # mounts.
                for _ in parents:
                    if above == rootfs:
                        break
                    above = parents.get(above, above)
                if rootfs in (None, above):
                    return True
        return False

    def _mount_of(self, root: str) -> int:
        """The id of the mount that is the container's root filesystem."""
        path = root.encode("utf-8", "surrogateescape")
        resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
        top = posix.open("root", _DIRECTORY, dir_fd=self.proc)
        try:
            fd = syscalls.openat2(top, path, _DIRECTORY, resolve)
        finally:
            posix.close(top)
        try:
            return syscalls.statx_mount(fd)[0]
        finally:
            posix.close(fd)

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd


class Container(Process):
    """A process in a container, or this process if the pid is None and we are in the container.

    Neither its user namespace nor its mount namespace is the host's, and the mount namespace
    belongs to the user namespace.
    """

    def _check(self, *, inside: bool) -> None:
        if self.is_on_host():
            raise HookError(
                NO_USER_NAMESPACE,
                "the container has no user namespace of its own, and BPF tokens exist only in one; "
                "add --userns=auto or --uidmap (podman), hostUsers: false (Kubernetes) or "
                "userns-remap (Docker)",
            )
        if not inside and not self.joins_mount:
            raise HookError(NO_USER_NAMESPACE, "the container has no mount namespace of its own")
        if not self.owns_its_mounts():
            raise HookError(
                NO_USER_NAMESPACE,
                "the container's mount namespace belongs to another user namespace than the "
                "container's own",
            )


def request(number: int) -> int:
    """The number of an ioctl of nsfs on this machine; `number` is its number on most machines."""
    return number | 1 << 29 if syscalls.MACHINE.startswith(_IOC_NONE_IS_1) else number


def read_at(directory: int, path: str) -> bytes:
    """The file at `path` below the open directory of a process in /proc.  Raises OSError."""
    fd = _open_at(directory, path)
    try:
        return read_all(fd, MOUNTINFO_MAX)
    except ValueError:
        from errno import EFBIG

        raise OSError(EFBIG, f"it is larger than {MOUNTINFO_MAX >> 20} MiB", path) from None
    finally:
        posix.close(fd)


def _open_at(directory: int, path: str) -> int:
    return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)


def _identity(status: posix.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
