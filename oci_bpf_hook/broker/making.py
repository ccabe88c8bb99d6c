"""Makes a mount in a container's namespaces, by a child there, without attaching it anywhere.

The broker's peer attaches it, or an engine that the NRI plugin serves.  The child is in the
container only to make the filesystem context and the mount; it is a container half
(`mount.container_half`) of another kind:

    (joins, waits)            <--  the mode
    CONTEXT, fd               -->  a filesystem context
    (makes the mount)         <--  CREATED
    MOUNT, what it is, fd     -->  a mount that is attached nowhere
"""

import posix
from _socket import socket
from typing import NoReturn

from ..delegation.masks import Grant
from ..errors import MOUNT_FAILED, HookError
from ..guard.pinned import Guard
from ..kernel import syscalls
from ..kernel.process import unshare
from ..mount import container_half
from ..mount.child import Half, create
from ..mount.host_half import mark, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..mount.container_half import Container
    from ..mount.host_half import Place

CONTEXT = b"f"
MOUNT = b"m"


class Making(Half):
    """A child that makes a mount in the namespaces of `container`, and has `seconds` for that.

    A container whose mount namespace isn't made yet, which has -1 for it, gets one that only the
    child is in.
    """

    def __init__(self, container: "Container", seconds: int = Half.seconds) -> None:
        self._container = container
        self.place: Place | None = None
        self.seconds = seconds
        super().__init__()

    def _child(self, sock: socket, parent: int) -> NoReturn:
        """Make the mount and end: it is sent out, and none stays here."""
        progress = container_half.Progress()
        try:
            container_half.join(self._container, None, parent, progress)
            if self._container.mount < 0:
                # Only root of the owner of its mount namespace may open a filesystem context.
                progress.step = "mounts"
                unshare(syscalls.CLONE_NEWNS)
            (mode,) = container_half.MODE.unpack_from(container_half.order_of(sock, self.seconds))
            progress.step = "fsopen"
            context = syscalls.fsopen(b"bpf")
            container_half.send_fd(sock, CONTEXT, context)
            if sock.recv(container_half.LONGEST) == container_half.CREATED:
                progress.step = "fsmount"
                mount = container_half.make_mount(context, mode)
                container_half.send_place(sock, mount, mount, MOUNT)
        except OSError as error:
            container_half.report(sock, progress.step, error)
        except container_half.GoneError:
            pass
        finally:
            posix._exit(0)

    def make(self, grant: Grant, guard: Guard | None = None) -> int:
        """A detached mount for `grant`, marked for `guard` if any; this object owns the fd.

        `place` then tells what it is.
        """
        self._send(container_half.MODE.pack(grant.mode))
        self._receive(CONTEXT)
        create(self._fds[0], grant)
        self._send(container_half.CREATED)
        self.place = place_of(self._receive(MOUNT))
        if len(self._fds) != 2:
            raise HookError(MOUNT_FAILED, "the container half sent no mount")
        if guard is not None:
            mark(guard, self._fds[1])
        return self._fds[1]
