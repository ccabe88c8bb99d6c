"""The pod in which a container is going to run, held by the namespaces that its engine names.

At CreateContainer there is no process of the container's, but the pod's user namespace exists.  The
engine names it by a path: /proc/PID/ns/user of the pod's first process, or a file on which it keeps
the namespace.  What is opened there has to be what the delegation is for: a user namespace of
root's, made directly below the initial one.
"""

import fcntl
import os
import stat

from ..container.namespaces import is_initial, owner_of, owning, request, user_namespace_of
from ..errors import BAD_STATE, MOUNT_FAILED, NO_USER_NAMESPACE, HookError, Problem, quote
from ..kernel.syscalls import CLONE_NEWUSER
from ..mount.host_half import mountinfo_of
from .place import EngineHalf
from .wire.messages import Creation, Mount

# _IO(0xb7, 3) (Linux: include/uapi/linux/nsfs.h).
_NS_GET_NSTYPE = 0xB703
# What a runtime makes for the container alone, and so can be written to without harm to others.
_OWN_KINDS = ("devtmpfs", "sysfs", "tmpfs")


class Pod:
    """The pod of `creation`, whose namespaces the `half` in the engine's mount namespace opens.

    It is what `broker.making` needs to know of a container: there is no mount namespace yet, and
    the user namespace is to be joined from the host.  The half owns the fds.
    """

    from_host = True
    joins_user = True
    joins_mount = False
    mount = -1
    proc = -1

    def __init__(self, creation: Creation, half: EngineHalf) -> None:
        """Raises HookError (NO_USER_NAMESPACE) without a user namespace of its own."""
        self._creation = creation
        self._half = half
        path = creation.namespaces.get("user", "")
        if not path:
            raise HookError(
                NO_USER_NAMESPACE,
                "the pod has no user namespace of its own, and BPF tokens exist only in one; add "
                "hostUsers: false",
            )
        self.user = half.open(path)
        try:
            self._check(path)
        except OSError as error:
            raise HookError(
                BAD_STATE, f"the pod's user namespace {quote(path)}: {error.strerror}"
            ) from None

    def _check(self, path: str) -> None:
        status = os.fstat(self.user)
        if not stat.S_ISREG(status.st_mode) or _type_of(self.user) != CLONE_NEWUSER:
            raise HookError(
                BAD_STATE, f"{quote(path)}, which the engine names, is no user namespace"
            )
        if is_initial(self.user):
            raise HookError(
                NO_USER_NAMESPACE,
                "the pod is in the host's user namespace, where there are no BPF tokens; add "
                "hostUsers: false",
            )
        parent = owning(self.user)
        try:
            outermost = is_initial(parent)
        finally:
            os.close(parent)
        if not outermost or self.owner() != 0:
            raise HookError(
                NO_USER_NAMESPACE,
                "the pod's user namespace isn't one that root's engine has made directly below the "
                "host's",
            )

    def owner(self) -> int:
        """The user who made the pod's user namespace, which is root."""
        return owner_of(self.user)

    def has_host_network(self) -> bool:
        """Whether the network namespace belongs to another user namespace than the pod's."""
        path = self._creation.namespaces.get("network")
        if not path:
            # Without a path the runtime makes one, and without an entry it makes none.
            return path is None
        network = self._half.open(path)
        try:
            status = os.fstat(self.user)
            return user_namespace_of(network) != (status.st_dev, status.st_ino)
        except PermissionError:
            return True
        except OSError as error:
            raise HookError(
                BAD_STATE, f"the pod's network namespace {quote(path)}: {error.strerror}"
            ) from None

    def sees_host_cgroups(self, root: str | None) -> bool:
        """Whether a cgroup hierarchy that the container sees may show more than its own cgroup.

        `root` is of no use here, since nothing is mounted yet.  In a cgroup namespace of its own
        the container sees its own cgroup, unless a volume shows the host's hierarchy.  One that is
        there already is somebody else's, and with none at all it is the host's.
        """
        assert root is None
        if self._creation.namespaces.get("cgroup") != "":
            return True
        points = [
            fields[4]
            for line in mountinfo_of(str(self._half.pid)).decode("utf-8", "replace").split("\n")
            if " - cgroup" in line
            for fields in [line.split(" ", 5)]
        ]
        # The engine has resolved links.  What is below /proc may still lead anywhere.
        return any(
            _is_bind(mount) and (_related(mount.source, "/proc") or _any(mount.source, points))
            for mount in self._creation.mounts
        )


def _type_of(file: int) -> int:
    """The type of the open namespace, one of CLONE_NEW*; 0 for any other `file`."""
    try:
        return fcntl.ioctl(file, request(_NS_GET_NSTYPE))
    except OSError:
        return 0


def _any(source: str, points: list[str]) -> bool:
    return any(_related(source, point) for point in points)


def _related(one: str, other: str) -> bool:
    """Whether one of the two paths is the other, or below it."""
    one, other = (f"{path.rstrip('/')}/" for path in (one, other))
    return one.startswith(other) or other.startswith(one)


def _is_bind(mount: Mount) -> bool:
    return mount.kind == "bind" or not {"bind", "rbind"}.isdisjoint(mount.options)


def free(path: str, mounts: tuple[Mount, ...]) -> None:
    """Raise HookError (MOUNT_FAILED) if a mount of the container's is in the way of `path`.

    A mount at the path would be replaced, since no container has two at one path; one below it
    would be mounted over ours; and in a volume above it the runtime would make directories.
    """
    for mount in mounts:
        parts = [part for part in mount.destination.split("/") if part not in ("", ".")]
        point = "/" + "/".join(parts)
        if ".." in parts:
            # The image's links say where that is.
            where = "perhaps at or above"
        elif point == path:
            where = "at"
        elif point.startswith(f"{path}/"):
            where = "below"
        elif path.startswith(f"{point}/") and mount.kind not in _OWN_KINDS:
            where = "above"
        else:
            continue
        problem = Problem(
            f"the container has a mount of its own at {quote(point)}, {where} the target directory "
            f"{quote(path)}",
            key="path",
            item=path,
            hint="remove it, or set io.bpffs.path elsewhere",
        )
        raise HookError(MOUNT_FAILED, problem)
