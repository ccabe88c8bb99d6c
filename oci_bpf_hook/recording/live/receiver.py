"""Records containers, whose runtime hands over the listener of their seccomp filter.

runtime-spec, config-linux.md: with `linux.seccomp.listenerPath` the runtime connects to a socket
and sends the container process state as JSON, together with the listener's fd.  `podman exec` makes
the runtime do so again.  We are outside the container, see its processes by our own pids, and hold
nothing that the container could reach.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import USAGE, HookError, quote
from ...oci.seccomp import BASES
from ...oci.state import STATE_MAX
from ..call import Call
from .run import handing_on
from .supervisor import Supervisor

_FDS_MAX = 8
_LISTENER = "seccompFd"
# A runtime that has connected sends at once.
_SECONDS = 10


class Receiver:
    """The socket at `path`, for root only, that runtimes connect to; to be used in a `with`."""

    def __init__(self, path: Path) -> None:
        """Listen.  Raises HookError (USAGE) if that fails."""
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Others need its parent directory as well: the broker's socket is in /run/oci-bpf-hook.
        before = os.umask(0o022)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.umask(0o077)
            _take_away(path)
            self._sock.bind(str(path))
            self._sock.listen()
        except OSError as error:
            self._sock.close()
            raise HookError(USAGE, f"the socket {path} can't be made: {error.strerror}") from None
        finally:
            os.umask(before)

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        self._path.unlink(missing_ok=True)

    def fileno(self) -> int:
        """The socket's fd; there is something to read from it when a runtime connects."""
        return self._sock.fileno()

    def accept(self) -> int | None:
        """The next container's listener; None if the runtime has closed the connection without one.

        A runtime does that if a hook refuses its container.  Raises HookError (USAGE) if something
        else than a runtime has connected.
        """
        connection, _ = self._sock.accept()
        with connection:
            connection.settimeout(_SECONDS)
            fds: list[int] = []
            try:
                return _received(connection, fds)
            except (OSError, ValueError, RecursionError) as error:
                raise HookError(USAGE, f"{self._path}: this isn't a runtime: {error}") from None
            finally:
                for fd in fds:
                    os.close(fd)


def _take_away(path: Path) -> None:
    """Remove the socket of a recorder that was killed, on which nobody listens any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink()
        except OSError:  # It isn't there, or it isn't a socket, and then bind(2) fails.
            pass


def _received(connection: socket.socket, fds: list[int]) -> int | None:
    """The listener, or None if nothing comes; all other fds that came are left in `fds`."""
    data = b""
    while len(data) <= STATE_MAX:
        piece, received, _, _ = socket.recv_fds(connection, 1 << 16, _FDS_MAX)
        fds += received
        if not piece:
            break
        data += piece
    if not data and not fds:
        return None
    process = json.loads(data)
    names = process.get("fds") if isinstance(process, dict) else None
    if not isinstance(names, list) or _LISTENER not in names or len(names) != len(fds):
        raise ValueError("it sends no listener")
    listener = fds.pop(names.index(_LISTENER))
    os.set_inheritable(listener, False)
    return listener


def profile(base: bytes, listener: Path) -> dict[str, Any]:
    """The seccomp profile `base`, changed to notify the socket `listener` of every bpf(2).

    Raises ValueError if `base` isn't a profile.
    """
    found = json.loads(base)
    if not isinstance(found, dict) or not isinstance(found.get("syscalls"), list):
        raise ValueError("it has no syscalls")
    rules = []
    for rule in found["syscalls"]:
        names = _names(rule)
        left = [name for name in names if name != "bpf"]
        if left == names:
            rules.append(rule)
        elif left:
            rules.append({**rule, "names": left})
    rules.append({"names": ["bpf"], "action": "SCMP_ACT_NOTIFY"})
    return {**found, "syscalls": rules, "listenerPath": str(listener)}


def _names(rule: Any) -> list[Any]:
    """The system calls that `rule` is about; in older profiles it is about one, its `name`."""
    names = rule.get("names", [rule.get("name")]) if isinstance(rule, dict) else None
    if not isinstance(names, list) or names == [None]:
        raise ValueError("a rule in it has no names")
    return names


def default_profile() -> Path:
    """The engine's own profile.  Raises HookError (USAGE) if there is none."""
    for name in BASES:
        if Path(name).exists():
            return Path(name)
    raise HookError(USAGE, f"none of {', '.join(BASES)} exists; name a profile by --seccomp")


def serve(receiver: Receiver, note: Callable[[Call], None]) -> Supervisor:
    """A supervisor that serves all containers that come to `receiver`."""
    supervisor = Supervisor(note)

    def take() -> None:
        try:
            listener = receiver.accept()
        except HookError as error:
            supervisor.blind = supervisor.blind or str(error)
        else:
            if listener is not None:
                supervisor.add(listener)

    supervisor.on(receiver.fileno(), take)
    return supervisor


def run(
    command: Sequence[str], receiver: Receiver, note: Callable[[Call], None]
) -> tuple[int, str]:
    """Run the engine's `command` and serve its containers.

    Returns its exit code, and why the results of calls couldn't be seen, or "".

    Containers that it leaves running are served until they have ended, or until ^C.
    """
    # While SIGCHLD is ignored, as we may have inherited it, nobody learns how a child has ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        process = subprocess.Popen(command)  # noqa: S603  The engine, with its user's arguments.
    except OSError as error:
        raise HookError(USAGE, f"{quote(command[0])} can't be run: {error.strerror}") from None
    supervisor = serve(receiver, note)
    pidfd = os.pidfd_open(process.pid)
    try:
        with handing_on(pidfd):
            supervisor.serve(pidfd)
    finally:
        os.close(pidfd)
    code = process.wait()
    try:
        supervisor.serve()
    except KeyboardInterrupt:
        pass
    supervisor.close()
    return code, supervisor.blind
