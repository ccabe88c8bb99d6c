"""Reads the files beside the one that a command is given, such as the drop-ins of a unit file."""

import os

from ...errors import USAGE, HookError
from ...formats.beside import Beside
from . import request


class Directory(Beside):
    """The directory of the file at `path`."""

    def __init__(self, path: str) -> None:
        self._path = os.path.dirname(path)

    def read(self, name: str) -> bytes | None:
        """The content of the file `name`, a path from there; None if there is no such file.

        Raises HookError (USAGE) if it can't be read.
        """
        path = os.path.join(self._path, name)
        return request.read(path) if os.path.isfile(path) else None

    def drop_ins(self, unit: str) -> list[tuple[str, bytes]]:
        """The path and the content of each drop-in of the unit file `unit`, in systemd's order.

        Raises HookError (USAGE) if one of them can't be read.
        """
        found: dict[str, str] = {}
        for directory in _drop_in_directories(unit):
            above = os.path.join(self._path, directory)
            try:
                names = os.listdir(above)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise HookError(USAGE, f"{above}: {error.strerror}") from None
            # Of several files of a name systemd takes that in the directory for fewer units.
            for name in names:
                if name.endswith(".conf") and os.path.isfile(os.path.join(above, name)):
                    found.setdefault(name, os.path.join(above, name))
        return [(path, request.read(path)) for _, path in sorted(found.items())]


def _drop_in_directories(unit: str) -> list[str]:
    """Where drop-ins of `unit` may be: foo-bar.container.d, foo-.container.d, container.d.

    Those of a template, foo@.container.d, are for its instances too.
    """
    stem, _, kind = unit.rpartition(".")
    prefixes = [stem[: at + 1] for at, character in enumerate(stem[:-1]) if character in "-@"]
    return [f"{one}.{kind}.d" for one in (stem, *reversed(prefixes))] + [f"{kind}.d"]
