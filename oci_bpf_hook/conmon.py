"""The name that podman gave a container: no annotation and no state has it, but conmon does."""

from .state import read_file


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
