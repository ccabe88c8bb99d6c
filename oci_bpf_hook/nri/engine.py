"""The engine at the other end of a connection, which is known by the kernel's word alone.

The plugin may run in a container of its own.  What it hands to the engine has to be where the
engine looks for it, so the engine's mount namespace is held from the beginning of the connection.
"""

import os
import socket

from ..broker.peer import credentials, has_ended, pidfd_of
from ..container.namespaces import Process, is_initial
from ..errors import NO_BROKER, HookError


def require_host() -> None:
    """Raise HookError (NO_BROKER) unless this process is root's in the initial user namespace."""
    if not is_initial() or os.geteuid():
        raise HookError(
            NO_BROKER,
            "the NRI plugin has to run as root in the initial user namespace; start it there",
        )


class Engine(Process):
    """The process at the other end of `sock`, to be used in a `with`.

    Raises HookError if it isn't root's on this host.
    """

    def __init__(self, sock: socket.socket) -> None:
        pid, uid, _ = credentials(sock)
        if uid:
            raise HookError(NO_BROKER, f"the engine runs as uid {uid}, and has to run as root")
        if not pid:
            raise HookError(
                NO_BROKER,
                "the engine is in another pid namespace; the pod of the plugin needs hostPID: true",
            )
        try:
            pidfd = pidfd_of(sock)
        except OSError as error:
            raise HookError(
                NO_BROKER, f"the kernel doesn't tell which process the engine is: {error.strerror}"
            ) from None
        try:
            super().__init__(pid)
            # If the engine hasn't ended now, what was opened by its pid is its own.
            gone = has_ended(pidfd)
        finally:
            os.close(pidfd)
        if gone:
            self.close()
            raise HookError(NO_BROKER, "the process that listened for plugins has ended")
        if not self.is_on_host():
            self.close()
            raise HookError(NO_BROKER, "the engine isn't in the initial user namespace")

    def fds(self) -> tuple[int, ...]:
        """The fds that are open for it."""
        return tuple(self._open)
