"""Imports this package's modules from Python's own byte code, with four system calls each.

A good part of what the hook takes beyond a bare interpreter is importlib's generality: it
looks for six kinds of file in several places, and reads what it finds through a buffer.  Here
both files of a module follow from its name.  Byte code is taken just where importlib takes it:
made by this Python, of the source as it is now.  All else is left to importlib, which compiles
what is missing or old and writes it for the next time.
"""

import posix
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader as _Base
    from types import ModuleType
else:
    _Base = object

_PACKAGE = f"{__package__}."
_SOURCES = __file__.rpartition("/")[0]
# Where importlib keeps byte code of this file, and so of those beside it.
_COMPILED, _, _SUFFIX = (__spec__.cached or "").rpartition("loader")
# The magic and no flags: byte code that goes by its source's time and size.
_BY_TIME = MAGIC_NUMBER + bytes(4)
_HEADER = 16
# Nothing in this package is that long; what is as long may be longer.
_LONGEST = 1 << 15


class Loader(_Base):
    """For the beginning of sys.meta_path: finds and loads modules of this package."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> ModuleSpec | None:
        """The module `name` and its code, or None where importlib has to see to it."""
        if not name.startswith(_PACKAGE):
            return None
        stem = name[len(_PACKAGE) :]
        source, compiled = f"{_SOURCES}/{stem}.py", f"{_COMPILED}{stem}{_SUFFIX}"
        try:
            status = posix.stat(source)
            fd = posix.open(compiled, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return None
        try:
            data = posix.read(fd, _LONGEST)
        finally:
            posix.close(fd)
        if len(data) == _LONGEST or data[:_HEADER] != _header(status):
            return None
        # root's own, as trustworthy as the source beside it.
        code = loads(memoryview(data)[_HEADER:])  # noqa: S302
        spec = ModuleSpec(name, self, origin=source, loader_state=code)
        spec.has_location = True
        spec.cached = compiled
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary module."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the code that was found."""
        spec = module.__spec__
        assert spec is not None
        code, spec.loader_state = spec.loader_state, None
        exec(code, module.__dict__)  # noqa: S102  What importing is.


def _header(status: posix.stat_result) -> bytes:
    """What byte code begins with that was made of the source with this `status`."""
    return (
        _BY_TIME
        + (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little")
        + (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    )
