"""Makes the broker's socket, or takes systemd's, and sends messages to systemd."""

import os
import socket

from ..container.namespaces import is_initial
from ..errors import NO_BROKER, HookError
from ..whole import make_directory


def require_host() -> None:
    """Raise HookError (NO_BROKER) unless this process is root's in the initial user namespace."""
    if not is_initial() or os.geteuid():
        raise HookError(
            NO_BROKER, "the broker is root's service in the initial user namespace; start it there"
        )


def inherited() -> socket.socket | None:
    """The socket that systemd has passed (sd_listen_fds(3)), or None.

    Raises HookError (NO_BROKER) if it has passed anything else.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if os.environ.get("LISTEN_FDS") != "1":
        raise HookError(NO_BROKER, "the broker takes exactly one socket from the service manager")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sock = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    wanted = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (sock.family, sock.type) != wanted or not listens:
        raise HookError(
            NO_BROKER, "the socket that was passed isn't a listening one of ListenSequentialPacket="
        )
    return sock


def listen(path: str, mode: int, group: int) -> socket.socket:
    """A new listening socket at `path`, in place of one that nobody listens on any more.

    Its directory is made if it is missing.  `mode` is the socket's, and `group` is its gid, or -1
    to leave that as it is.  Raises HookError (NO_BROKER), also if another broker listens there.
    """
    directory = os.path.dirname(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    new = f"{path}.{os.getpid()}"
    try:
        if not os.path.isdir(directory):
            os.makedirs(os.path.dirname(directory) or ".", exist_ok=True)
            make_directory(directory)
        if _answers(path):
            raise HookError(NO_BROKER, f"another broker already listens at {path}")
        # The file gets the socket's own mode, less the umask.  A chmod(2) of the path could hit
        # another file, which somebody who may write to the directory has put in its place.
        os.fchmod(sock.fileno(), mode)
        before = os.umask(0)
        try:
            sock.bind(new)
        finally:
            os.umask(before)
        os.chown(new, -1, group, follow_symlinks=False)
        sock.listen(socket.SOMAXCONN)
        # rename(2) is atomic: a client finds either the old socket, which refuses, or this one.
        os.rename(new, path)
    except OSError as error:
        raise HookError(NO_BROKER, f"the broker can't listen at {path}: {error}") from None
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(path)
        except OSError:
            return False
        return True


def notify(state: str) -> None:
    """Send `state` to systemd, if it started us (sd_notify(3)); failures are ignored."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            sock.send(state.encode())
        except OSError:
            pass
