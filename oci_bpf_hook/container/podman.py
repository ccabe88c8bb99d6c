"""Finds the name that podman gave a container: it is only on the command line of conmon.

conmon has started the runtime, and so is our ancestor; no other process is looked at, and the name
counts only if conmon has the id that the runtime told us.  On the host conmon has to run as root,
because a user who calls root's engine could start a conmon with any name.  Nothing that its command
line names is opened or run.
"""

from ..files import read_file
from .namespaces import is_initial


def container_name(identity: str) -> str | None:
    """The name that podman gave the container with the id `identity`, or None.

    podman has no annotation for it, but tells conmon, our grandparent: `-c ID -n NAME`.
    """
    # getppid() isn't used: a hook in the container gets another number than is in the host's /proc.
    pid = "self"
    for _ in range(4):
        try:
            status = read_file(f"/proc/{pid}/stat", 4096, anybodys=True)
            # The command's name, in parentheses, may itself have blanks and parentheses.
            pid = status.rpartition(b")")[2].split()[1].decode("ascii")
            command = read_file(f"/proc/{pid}/cmdline", 1 << 16, anybodys=True)
            if is_initial() and not _is_roots(pid):
                return None
        except (OSError, ValueError):
            return None
        arguments = command.split(b"\0")
        if arguments[0].rpartition(b"/")[2] == b"conmon":
            # If an option is given twice the first counts: podman's options come before the user's.
            given = dict(zip(arguments[-2::-1], arguments[:0:-1], strict=True))
            if given.get(b"-c") == identity.encode():
                return given.get(b"-n", b"").decode("utf-8", "replace") or None
            return None
    return None


def _is_roots(pid: str) -> bool:
    """Whether all user ids of `pid` are root's; a set-user-id program changes only some of them.

    Raises OSError, ValueError.
    """
    lines = read_file(f"/proc/{pid}/status", 1 << 16, anybodys=True).split(b"\n")
    ids = next((line.split()[1:] for line in lines if line.startswith(b"Uid:")), [])
    return set(ids) == {b"0"}
