"""The names of Docker's containers, by its own API: no command line and no cgroup has them.

containerd runs Docker's containers in a namespace of its own, by which they are told from others.
"""

import re
from json import loads
from socket import AF_UNIX, SOCK_STREAM, socket
from stat import S_ISSOCK

from .programs import roots_alone

# Where root's dockerd listens, unless it was told otherwise.
SOCKET = "/run/docker.sock"
# `moby`, or with userns-remap `moby-UID.GID`, by the remapped root (moby: daemon/daemon.go).
_NAMESPACE = re.compile(r"moby(?:-\d+\.\d+)?")
_SECONDS = 2
# The most bytes of an answer, which has about a kilobyte for each container.
_LONGEST = 64 << 20
_BLOCK = 1 << 16


def is_namespace(name: str | None) -> bool:
    """Whether `name` is that of Docker's namespace in containerd."""
    return name is not None and _NAMESPACE.fullmatch(name) is not None


def names(path: str = SOCKET) -> dict[str, tuple[str, str]]:
    """Name and image of each of Docker's containers that run, by its id.

    None are found if root's dockerd doesn't answer at `path`, or if we may not ask it.
    """
    found = roots_alone(path)
    if found is None or not S_ISSOCK(found.st_mode):
        return {}
    try:
        listed = loads(_get(path, "/containers/json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return dict(filter(None, map(_name, listed))) if isinstance(listed, list) else {}


def _name(one: object) -> tuple[str, tuple[str, str]] | None:
    if not isinstance(one, dict):
        return None
    called = one.get("Names")
    if not isinstance(called, list):
        return None
    # A container that others link to also has the names /OTHER/ALIAS.
    own = [name[1:] for name in called if isinstance(name, str) and name.rfind("/") == 0]
    return (str(one.get("Id")), (own[0], str(one.get("Image") or ""))) if own else None


def _get(path: str, what: str) -> bytes:
    """What is at `what`.  Raises OSError, and ValueError if there is nothing."""
    data = b""
    with socket(AF_UNIX, SOCK_STREAM) as sock:
        sock.settimeout(_SECONDS)
        sock.connect(path)
        # With this version the answer is in one piece and ends the connection.
        sock.sendall(f"GET {what} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        while block := sock.recv(_BLOCK):
            data += block
            if len(data) > _LONGEST:
                raise ValueError(f"{what} has more than {_LONGEST} bytes")
    head, _, body = data.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError(f"{what} isn't there")
    return body
