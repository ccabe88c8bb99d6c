"""The name that podman gave a container: no annotation and no state has it, but conmon does.

Only what has started us is asked, by the kernel's word on whose child it is, and only for the id
that the runtime told.  On the host it has to be root's as we are: a user who has called root's
engine may have any name.  Nothing that it says is opened or run.
"""

from .container import is_initial
from .files import read_file


def container_name(identity: str) -> str | None:
    """The name that podman gave the container with the id `identity`, or None.

    podman has no annotation for it, but tells conmon, our grandparent: `-c ID -n NAME`.
    """
    # Not getppid(): in the container that is another number than the host's /proc has.
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
            # The first of two counts: podman's own come before what whoever runs it may add.
            given = dict(zip(arguments[-2::-1], arguments[:0:-1], strict=True))
            if given.get(b"-c") == identity.encode():
                return given.get(b"-n", b"").decode("utf-8", "replace") or None
            return None
    return None


def _is_roots(pid: str) -> bool:
    """Whether each of its user ids is root's: by a set-user-id program only some would be.

    Raises OSError, ValueError.
    """
    lines = read_file(f"/proc/{pid}/status", 1 << 16, anybodys=True).split(b"\n")
    ids = next((line.split()[1:] for line in lines if line.startswith(b"Uid:")), [])
    return set(ids) == {b"0"}
