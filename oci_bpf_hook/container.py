"""A container that is about to start, held by its namespaces.

A pid names whoever has it at the moment.  So one directory fd on /proc/PID is opened
and used for everything: it stays with the process it was opened for and fails once
that is gone, as a pidfd does.  The namespaces are then held by fds of their own, and
those are what was checked and what is joined.
"""

import fcntl
import posix
from _struct import Struct

from . import syscalls
from .errors import BAD_STATE, NO_BROKER, NO_USER_NAMESPACE, HookError
from .state import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


# include/linux/proc_ns.h: PROC_USER_INIT_INO, the initial user namespace's inode.
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
# _IO(0xb7, 1) and _IO(0xb7, 4) of linux/nsfs.h; these architectures spell "no direction"
# as 1 << 29.
_NS_GET_USERNS = 0xB701
_NS_GET_OWNER_UID = 0xB704
_IOC_NONE_IS_1 = ("mips", "ppc", "sparc")
_UID = Struct("I")
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


class Container:
    """Owns `proc` (/proc/PID), `user` and `mount` (its namespaces), to be used in a `with`."""

    def __init__(self, pid: int) -> None:
        """Open the process `pid`.  Raises HookError if it is no container of another user."""
        self._open: list[int] = []
        try:
            self.proc = self._keep(posix.open(f"/proc/{pid}", _DIRECTORY))
            self.user = self._keep(_open_at(self.proc, "ns/user"))
            self.mount = self._keep(_open_at(self.proc, "ns/mnt"))
            self._mount_id = _identity(posix.fstat(self.mount))
            self._check()
        except OSError as error:
            self.close()
            raise _unreachable(pid, error) from None
        except HookError:
            self.close()
            raise

    def __enter__(self) -> "Container":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give all fds back."""
        while self._open:
            posix.close(self._open.pop())

    def alive(self) -> bool:
        """Whether the process still is there, in the mount namespace that was opened."""
        try:
            return _identity(posix.stat("ns/mnt", dir_fd=self.proc)) == self._mount_id
        except OSError:
            return False

    def owner(self) -> int:
        """The user, by the host's ids, who made the container's user namespace."""
        (uid,) = _UID.unpack(fcntl.ioctl(self.user, _request(_NS_GET_OWNER_UID), bytes(_UID.size)))
        assert isinstance(uid, int)
        return uid

    def has_host_network(self) -> bool:
        """Whether its network namespace belongs to another user namespace than its own.

        Raises HookError (BAD_STATE).
        """
        try:
            network = _open_at(self.proc, "ns/net")
            try:
                owner = fcntl.ioctl(network, _request(_NS_GET_USERNS))
                try:
                    return _identity(posix.fstat(owner)) != self._user_id
                finally:
                    posix.close(owner)
            finally:
                posix.close(network)
        except PermissionError:
            # Nobody below us owns it.
            return True
        except OSError as error:
            raise _unreachable(0, error) from None

    def sees_host_cgroups(self, root: str) -> bool:
        """Whether below its root filesystem at `root` a cgroup2 shows more than its own cgroup.

        BPF programs attach to whatever cgroup directory can be opened, and to open one for
        reading takes no right.  Raises HookError (BAD_STATE).
        """
        try:
            rootfs = str(self._mount_of(root))
            mountinfo = _read_at(self.proc, "mountinfo").decode("utf-8", "surrogateescape")
            cgroups = _read_at(self.proc, "cgroup").decode("utf-8", "surrogateescape")
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
                    # We aren't in the container's cgroup namespace: this is what it really is.
                    shown[identity] = top
        for identity, top in shown.items():
            if own == "/" or not f"{top}/".startswith(f"{own}/"):
                above = identity
                while above in parents and above != rootfs:
                    above = parents[above]
                if above == rootfs:
                    return True
        return False

    def _mount_of(self, root: str) -> int:
        """The id of the mount that the container's root filesystem is."""
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

    def _check(self) -> None:
        ours = posix.stat("/proc/self/ns/user")
        user = self._user_id = _identity(posix.fstat(self.user))
        if user == _identity(ours) or user[1] == _INITIAL_USER_NAMESPACE:
            if ours.st_ino != _INITIAL_USER_NAMESPACE:
                raise _rootless()
            raise HookError(
                NO_USER_NAMESPACE,
                "the container has no user namespace of its own, and BPF tokens exist only in one; "
                "add --userns=auto or --uidmap (podman), hostUsers: false (Kubernetes) or "
                "userns-remap (Docker)",
            )
        if ours.st_ino != _INITIAL_USER_NAMESPACE:
            raise _rootless()
        if self._mount_id == _identity(posix.stat("/proc/self/ns/mnt")):
            raise HookError(
                NO_USER_NAMESPACE, "the container has no mount namespace of its own to mount in"
            )
        # Whoever owns the mount namespace decides what is mounted there; it is only the
        # container's own if that is its user namespace.
        owner = self._keep(fcntl.ioctl(self.mount, _request(_NS_GET_USERNS)))
        if _identity(posix.fstat(owner)) != user:
            raise HookError(
                NO_USER_NAMESPACE,
                "the container's mount namespace belongs to another user namespace than its own",
            )


def _request(number: int) -> int:
    return number | 1 << 29 if posix.uname().machine.startswith(_IOC_NONE_IS_1) else number


def _read_at(directory: int, path: str) -> bytes:
    fd = _open_at(directory, path)
    try:
        return read_all(fd)
    finally:
        posix.close(fd)


def _open_at(directory: int, path: str) -> int:
    return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=directory)


def _identity(status: posix.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _rootless() -> HookError:
    return HookError(
        NO_BROKER,
        "a rootless engine can't delegate BPF: that takes CAP_SYS_ADMIN in the initial user "
        "namespace; run the container with the rootful engine and a user namespace",
    )


def _unreachable(pid: int, error: OSError) -> HookError:
    if isinstance(error, PermissionError):
        return HookError(
            NO_BROKER,
            f"the hook may not look at process {pid} ({error.strerror}): the engine's service "
            "lacks CAP_SYS_PTRACE or CAP_SYS_ADMIN in the initial user namespace",
        )
    # ENOENT for a pid that nobody has, ESRCH for one that has just died.
    return HookError(
        BAD_STATE, f"the container's process {pid} is gone ({error.strerror}); it died before us"
    )
