"""A container that is about to start, held by its namespaces.

A pid names whoever has it at the moment.  So one directory fd on /proc/PID is opened
and used for everything: it stays with the process it was opened for and fails once
that is gone, as a pidfd does.  The namespaces are then held by fds of their own, and
those are what was checked and what is joined.
"""

import fcntl
import posix

from .errors import BAD_STATE, NO_BROKER, NO_USER_NAMESPACE, HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


# include/linux/proc_ns.h: PROC_USER_INIT_INO, the initial user namespace's inode.
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
# _IO(0xb7, 1) of linux/nsfs.h; these architectures spell "no direction" as 1 << 29.
_NS_GET_USERNS = 0xB701
_IOC_NONE_IS_1 = ("mips", "ppc", "sparc")
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

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd

    def _check(self) -> None:
        ours = posix.stat("/proc/self/ns/user")
        user = _identity(posix.fstat(self.user))
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
        request = _NS_GET_USERNS
        if posix.uname().machine.startswith(_IOC_NONE_IS_1):
            request |= 1 << 29
        owner = self._keep(fcntl.ioctl(self.mount, request))
        if _identity(posix.fstat(owner)) != user:
            raise HookError(
                NO_USER_NAMESPACE,
                "the container's mount namespace belongs to another user namespace than its own",
            )


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
