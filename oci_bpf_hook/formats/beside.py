"""The files beside the one that is read, such as the drop-ins of a unit file."""


class Beside:
    """The files beside a file.  Here there are none, as for standard input."""

    def read(self, name: str) -> bytes | None:
        """The content of the file `name`, a path from there; None if there is no such file."""
        del name
        return None

    def drop_ins(self, unit: str) -> list[tuple[str, bytes]]:
        """The path and the content of each drop-in of the unit file `unit`, in systemd's order."""
        del unit
        return []
