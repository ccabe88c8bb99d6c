"""The host half: this process delegates a bpffs, and its child in the container attaches it.

The kernel wants fsopen() to be called from inside the container's user and mount namespaces, and
the delegation to be set from the initial user namespace (Linux: kernel/bpf/inode.c,
bpf_fill_super; 6.9).  So this process starts the container half (`container_half`), which makes the
filesystem context; it configures the context, or has a broker do all that; and it reads back what
the kernel has done.
"""

import posix
from errno import EINVAL, ENOENT, ESRCH

from ..delegation.masks import differences
from ..errors import BAD_STATE, MOUNT_FAILED, NOT_AS_GRANTED, HookError, quote
from ..files import MOUNTINFO_MAX, read_all
from . import container_half
from .child import Half, create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping
    from typing import NoReturn

    from ..bpf.names import Enum
    from ..container.namespaces import Container
    from ..delegation.masks import Grant
    from ..guard.pinned import Guard

    # A mount's id, whether a directory is its root, and that directory's uid, gid and mode.
    Place = tuple[int, bool, int, int, int]


# Seconds that asking a broker may take, which serves others too.  The JSON in hooks.d allows more.
ASKING = 8
# Seconds for undoing what a killed container half has left.
_UNDO_DEADLINE = 0.5
_FLAGS = frozenset(("rw", "nosuid", "nodev", "noexec"))
# Mounts with one of these before the peer group's number receive what is mounted in the group.
_RECEIVING = ("shared:", "master:")
# A line of mountinfo has six fields before the optional ones, and a hyphen after them.
_OPTIONAL = 6


class HostHalf(Half):
    """The host half, with the container half as a child of ours; to be used in a `with`."""

    def __init__(self, container: "Container", root: str, broker: str = "") -> None:
        """Start the child: it joins `container`, whose root filesystem is at `root`, and waits.

        `root` is RUNNING for a container that isn't about to start.  If `broker`, the path of a
        broker's socket, is given, that broker delegates instead of this process.
        """
        self._container = container
        self._root = root
        self._broker = broker
        self._path = b""
        # How many directories of the path have to be removed if the mount is undone.
        self._making = 0
        self._kept = False
        self._undo = False
        if broker:
            self.seconds = ASKING
        super().__init__()

    def _child(self, sock: "socket", parent: int) -> "NoReturn":
        where = (self._container, self._root, parent)
        if self._undo:
            container_half.undo(*where, self._mount(), self._made())
        broker = self._broker.encode()
        container_half.run(sock, *where, seconds=self.seconds, broker=broker)

    def _mount(self) -> int:
        """The fd of the mount, the second one that the child sends, or -1 before that."""
        return self._fds[1] if len(self._fds) > 1 else -1

    def _made(self) -> list[bytes]:
        """The directories that the child has made or was about to make, the outermost first."""
        names = self._path[1:].split(b"/")
        ends = range(len(names) - self._making, len(names))
        return [b"/".join(names[: end + 1]) for end in ends]

    def mount(
        self,
        grant: "Grant",
        enums: "Mapping[str, Enum]",
        *,
        guard: "Guard | None" = None,
        alone: bool = False,
    ) -> bool:
        """Mount what `grant` says; `enums` are the kernel's names for what is granted.

        With `guard` the mount is marked for the guard before the container sees it.  It is
        unmounted again unless `keep` is called.  If the very same mount is there already, returns
        False and changes nothing.  With `alone`, a mount that would hide another delegation is an
        error.  Raises HookError, after everything was undone.
        """
        context = self.aim(grant.path, grant.mode)
        if self.has(grant, enums, guard=guard):
            return False
        if alone and self.has_any():
            from .failure import would_hide

            raise would_hide(grant.path)
        create(context, grant)
        self.attach(grant, enums, guard=guard)
        return True

    def aim(self, path: str, mode: int) -> int:
        """Find or make the directory `path`, for a mount whose root is to have `mode`.

        Returns the container half's filesystem context, or its connection to the broker, or -1 if
        there is no broker.  This object keeps owning the fd.
        """
        self._path = path.encode("utf-8", "surrogateescape")
        self._send(container_half.MODE.pack(mode) + self._path)
        expected = (container_half.MAKING, container_half.PLACED)
        while (message := self._receive(*expected)).startswith(container_half.MAKING):
            self._may_make(message)
        self._target = place_of(message)
        return self._fds[0] if self._fds else -1

    def has(
        self, grant: "Grant", enums: "Mapping[str, Enum]", *, guard: "Guard | None" = None
    ) -> bool:
        """Whether the directory already is a bpffs that is exactly as `grant` says.

        With `guard` it has to be marked for the guard, without `guard` it must not be marked.
        """
        if not self._target[1] or wrong(self._target, self._fields(self._target[0]), grant, enums):
            return False
        owned, marked = self._owned_and_marked(guard)
        return owned and marked == (guard is not None)

    def has_any(self) -> bool:
        """Whether the directory already is a bpffs that delegates something to the container.

        Only the host can have made it.
        """
        if not self._target[1]:
            return False
        _, kind, _, options = _shown(self._fields(self._target[0]))
        return (
            kind == "bpf"
            and any(option.startswith("delegate_") for option in options)
            and self._owned_and_marked()[0]
        )

    def _owned_and_marked(self, guard: "Guard | None" = None) -> tuple[bool, bool]:
        """Whether the target belongs to the container's user namespace, as tokens require.

        And whether it is marked for `guard`, or if that is None for the guard in force, as far as
        this process may look at that one.
        """
        before = len(self._fds)
        self._send(container_half.OWNER)
        _, owned = container_half.COUNT.unpack(self._receive(container_half.OWNED))
        if len(self._fds) != before + 1:
            raise HookError(MOUNT_FAILED, "the container half sent no fd of the directory")
        target = self._fds.pop()
        try:
            return bool(owned), _marked(target, guard)
        finally:
            posix.close(target)

    def attach(
        self,
        grant: "Grant",
        enums: "Mapping[str, Enum]",
        mount: int = -1,
        *,
        guard: "Guard | None" = None,
    ) -> None:
        """Attach the new mount, or the detached `mount`, and read back that it is as `grant` says.

        With `guard` the mount is marked before it is attached.
        """
        self._stays_inside(self._target[0])
        self._send(container_half.CREATED, mount)
        place = place_of(self._receive(container_half.PLACED))
        if guard is not None:
            mark(guard, self._mount())
        self._send(container_half.ATTACH)
        self._receive(container_half.ATTACHED)
        found = wrong(place, self._fields(place[0]), grant, enums)
        dead = not self._container.alive()
        if found or dead:
            self._end()
        if dead:
            raise HookError(BAD_STATE, "the container's process died before the mount was done")
        if found:
            from .failure import not_as_granted

            raise not_as_granted(found)

    def failure(self) -> HookError:
        """The error that says why the container half hasn't reached the broker."""
        try:
            self._send(container_half.CREATED)
            self._receive(container_half.FAILED)
        except HookError as error:
            return error
        return self._died()

    def keep(self) -> None:
        """Let the attached mount stay.  Raises HookError, after everything was undone."""
        self._send(container_half.KEEP)
        self._kept = True

    def _message(self) -> bytes:
        """The next message; notes how many directories the child makes, which may have to go."""
        message = super()._message()
        if message.startswith(container_half.MAKING):
            _, missing, mount = container_half.MISSING.unpack(message)
            # If it names a mount, the child waits for MAKE and hasn't made anything yet.
            self._making = 0 if mount else missing
        return message

    def _may_make(self, message: bytes) -> None:
        """Let the child make the directories that are missing, or refuse.

        A volume may belong to anybody.  If it is to be read-only, crun makes it so only after the
        hooks (crun: src/libcrun/linux.c, finalize_mounts); until then the kernel lets us write to
        it.  A file system that only the container has is as safe as its root filesystem.
        """
        _, missing, mount = container_half.MISSING.unpack(message)
        if not mount:
            return
        self._stays_inside(mount)
        if not self._is_containers_own(mount):
            from .failure import in_volume

            raise in_volume(self._path, self._fields(mount)[4:5])
        self._making = missing
        self._send(container_half.MAKE)

    def _is_containers_own(self, mount: int) -> bool:
        """Whether the file system of the container's `mount` certainly is the container's alone."""
        # The source of a bind mount is also mounted in the runtime's mount namespace, which is ours
        # unless we are in the container.
        fields = self._fields(mount)
        if not fields or not self._container.joins_mount:
            return False
        return b" %s " % fields[2].encode() not in mountinfo_of("self")

    def _stays_inside(self, mount: int) -> None:
        """Refuse a target on a `mount` from which new mounts propagate out of the container.

        crun makes a volume that is rshared a peer of the host's own mount.
        """
        groups = [
            field.removeprefix("shared:")
            for field in _optional(self._fields(mount))
            if field.startswith("shared:")
        ]
        if not groups:
            return
        # A peer group has the same number in all mount namespaces.  From within the container it
        # can't be seen who else is in the group, so each group counts as the host's.
        receiving = {kind + groups[0] for kind in _RECEIVING}
        if not self._container.joins_mount or any(
            not receiving.isdisjoint(_optional(line.split(" ")))
            for line in mountinfo_of("self").decode("utf-8", "replace").split("\n")
        ):
            from .failure import in_shared_volume

            raise in_shared_volume()

    def _fields(self, mount: int) -> list[str]:
        """The fields of the line about the container's `mount`; empty if there is no such line."""
        return fields_of(self._mountinfo(), mount)

    def _mountinfo(self) -> bytes:
        """The container's mounts, read from the host's /proc.

        The child is in the container's mount namespace, and keeps its pid until we reap it.  If we
        are in the container ourselves, that namespace is ours too, and /proc/self shows the same.
        """
        try:
            return mountinfo_of(str(self._pid) if self._container.joins_mount else "self")
        except OSError as error:
            # Reading the mountinfo of a dead process that isn't reaped yet fails with EINVAL.
            if error.errno not in (ENOENT, ESRCH, EINVAL):
                raise HookError(
                    MOUNT_FAILED, f"the container's mounts can't be read: {error.strerror}"
                ) from None
            raise self._died() from None

    def _end(self) -> None:
        """Wait until the child has gone; kill it if it hangs.

        The child sees the end of the socket, undoes what it wasn't told to keep, and exits.  For a
        child that was killed, another child undoes it.
        """
        if not self._pid:
            return
        super()._end()
        left = self._making or self._mount() >= 0
        if posix.WIFSIGNALED(self._status) and left and not self._kept:
            self._undo = True
            try:
                self._start(_UNDO_DEADLINE)
            except OSError:  # Then nothing more can be undone.
                return
            self._wait()


def mark(guard: "Guard", mount: int) -> None:
    """Have `guard` hold the new `mount`, which nobody in a container has seen yet.

    Raises HookError (NOT_AS_GRANTED).
    """
    try:
        guard.mark(mount)
        if guard.marked(mount):
            return
        why = "the mark isn't there afterwards"
    except OSError as error:
        why = str(error.strerror)
    raise HookError(NOT_AS_GRANTED, f"the new bpffs can't be confined: {why}")


def _marked(target: int, guard: "Guard | None") -> bool:
    from ..guard.pinned import AbsentError, in_force

    try:
        if guard is not None:
            return guard.marked(target)
        with in_force() as found:
            return found.marked(target)
    except (AbsentError, OSError):
        return False


def place_of(message: bytes) -> "Place":
    """What a message like PLACED tells."""
    _, mount, is_root, uid, gid, mode = container_half.PLACE.unpack(message)
    return mount, is_root, uid, gid, mode


def fields_of(mountinfo: bytes, mount: int) -> list[str]:
    """The fields of the line about the `mount` in `mountinfo`; empty if there is no such line.

    ID parent major:minor root point flags [optional]... - type source options
    """
    # A container may have hundreds of mounts, and only this one's line matters.
    lines = b"\n" + mountinfo
    start = lines.find(b"\n%d " % mount) + 1
    if not start:
        return []
    return lines[start : lines.find(b"\n", start)].decode("utf-8", "replace").split(" ")


def wrong(
    place: "Place", fields: list[str], grant: "Grant", enums: "Mapping[str, Enum]"
) -> list[str]:
    """How the mount at `place`, with these `fields` in mountinfo, differs from `grant`."""
    _, is_root, uid, gid, mode = place
    top, kind, flags, options = _shown(fields)
    if not kind:
        return ["it isn't among the container's mounts"]
    found: list[str] = []
    if kind != "bpf" or top != "/" or not is_root:
        found.append(f"it is {quote(top)} of a {quote(kind)}")
    if not _FLAGS.issubset(flags):
        found.append(f"its flags are {quote(','.join(flags))}")
    if (uid, gid) != (0, 0):
        found.append(f"it belongs to {uid}:{gid}, not to the container's root")
    if mode & 0o7777 != grant.mode:
        found.append(f"its mode is {mode & 0o7777:04o} and should be {grant.mode:04o}")
    return found + differences(grant, options, enums)


def _shown(fields: list[str]) -> tuple[str, str, list[str], list[str]]:
    """What a mountinfo line's `fields`, if any, show of a mount: root, type, flags, options."""
    if not fields:
        return "", "", [], []
    tail = fields[fields.index("-", _OPTIONAL) + 1 :]
    return fields[3], tail[0], fields[5].split(","), tail[2].split(",")


def mountinfo_of(process: str) -> bytes:
    """The mounts of the `process`, a pid or "self".  Raises OSError, HookError (MOUNT_FAILED)."""
    fd = posix.open(f"/proc/{process}/mountinfo", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return read_all(fd, MOUNTINFO_MAX)
    except ValueError:
        raise HookError(
            MOUNT_FAILED,
            "the container's mounts can't be checked, because there are too many: "
            f"/proc/{process}/mountinfo is larger than {MOUNTINFO_MAX >> 20} MiB; unmount some",
        ) from None
    finally:
        posix.close(fd)


def _optional(fields: list[str]) -> list[str]:
    """The optional ones of a mountinfo line's `fields`, which say how the mount propagates."""
    return fields[_OPTIONAL : fields.index("-", _OPTIONAL)] if len(fields) > _OPTIONAL else []
