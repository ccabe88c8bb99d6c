"""Imports this package's modules from Python's own byte code, with four system calls each.

importlib looks for six kinds of file in several places and reads what it finds through a buffer,
which is a good part of the time that the hook takes beyond a bare interpreter.  Here the paths of
a module's source and byte code follow from its name.  Byte code is used only where importlib would
use it: it was made by this Python, from the source as it is now.  Everything else is left to
importlib, which compiles what is missing or old and writes it for the next time.
"""

import _signal
import gc
import posix
import sys
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

# The hook's folders, each after the one that it is in.  They are packages whose `__init__.py` is
# only a docstring, so they are made here, when a module of theirs is loaded, without looking for
# that file: finding it costs as much as finding a module.
FOLDERS = (
    *("audit", "bpf", "broker", "container", "delegation", "guard", "hook", "kernel", "mount"),
    *("oci", "pipeline", "policy", "policy.store", "text"),
)

# The modules that every start needs, those that every request needs too, and those that a grant
# needs besides, each after those that it imports.  They are loaded here because importlib spends
# half of an import's time on finding out that it has nothing to do.
ASKED = (
    *("values", "errors", "bpf.names", "delegation.annotations", "text.strict_json"),
    *("oci.state", "hook.process", "hook.main"),
)
REQUEST = ("kernel.syscalls", "files", "container.namespaces")
GRANT = (
    *("policy.compiled", "policy.subject", "syslog", "audit.write", "pipeline.case", "paths"),
    *("policy.store.cache", "bpf.type_facts", "delegation.masks", "policy.decide"),
    *("delegation.lint", "mount.container_half", "mount.child", "mount.host_half"),
)

_PACKAGE = f"{__package__}."
_SOURCES = __file__.rpartition("/")[0]
# The directory of this file's byte code, and the end of its name.  Those of the other modules are
# formed in the same way.
_CACHE, _, _SUFFIX = (__spec__.cached or "").removeprefix(_SOURCES).rpartition("loader")
# The magic number and no flags mean byte code that is valid for a source of that time and size.
_BY_TIME = MAGIC_NUMBER + bytes(4)
_HEADER = 16
# The most bytes to read.  All byte code is shorter, so after a full read a part may be missing.
_LONGEST = 1 << 15
_Module = type(sys)


class Loader(_Base):
    """Finds and loads modules of this package; `install` puts it first in sys.meta_path."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> ModuleSpec | None:
        """The module `name` with its code, or one of FOLDERS; None to leave it to importlib."""
        if not name.startswith(_PACKAGE):
            return None
        folder, _, stem = name[len(_PACKAGE) - 1 :].replace(".", "/").rpartition("/")
        source = f"{_SOURCES}{folder}/{stem}.py"
        compiled = f"{_SOURCES}{folder}{_CACHE}{stem}{_SUFFIX}"
        try:
            status = posix.stat(source)
            fd = posix.open(compiled, posix.O_RDONLY | posix.O_CLOEXEC)
            try:
                data = posix.read(fd, _LONGEST)
            finally:
                posix.close(fd)
        except OSError:
            return _package(name) if name[len(_PACKAGE) :] in FOLDERS else None
        if len(data) == _LONGEST or data[:_HEADER] != _header(status):
            return None
        # The byte code is as trustworthy as the source beside it: both are root's.
        code = loads(memoryview(data)[_HEADER:])  # noqa: S302
        spec = ModuleSpec(name, self, origin=source, loader_state=code)
        spec.has_location = True
        spec.cached = compiled
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """Return None, so that the import system makes an ordinary module."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the code that was found; a folder has none."""
        spec = module.__spec__
        assert spec is not None
        code, spec.loader_state = spec.loader_state, None
        if code is not None:
            exec(code, module.__dict__)  # noqa: S102  Importing a module runs it.


def begin() -> None:
    """Begin as the hook, for the launcher, which has just put its directory first in sys.path."""
    # A terminal or a service manager sends these signals to all processes of a runtime at once.
    # They would end both halves of the hook, and nobody would undo what is half done.  So they are
    # ignored; the hook ends soon anyway.
    for number in _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGHUP:
        _signal.signal(number, _signal.SIG_IGN)
    # The process ends so soon that collecting garbage costs more time than it saves.
    gc.disable()
    # No other module is imported from that directory, so that no file beside the package can
    # take the place of one of Python's modules.
    del sys.path[0]
    install()


def install() -> None:
    """Import this package's modules in this way from now on, and load ASKED."""
    sys.meta_path.insert(0, _LOADER)
    ahead(ASKED)


def ahead(names: "Sequence[str]") -> None:
    """Load those of the modules `names` that aren't loaded yet, as importing them would.

    It does nothing if the package is imported in the ordinary way.  A module that has to be
    compiled first is left out here, and is imported when it is needed.
    """
    if _LOADER not in sys.meta_path:
        return
    for stem in names:
        name = _PACKAGE + stem
        if name in sys.modules or (spec := _LOADER.find_spec(name)) is None:
            continue
        parent, _, own = name.rpartition(".")
        folder = sys.modules.get(parent) or _folder(parent)
        module = sys.modules[name] = _Module(name)
        module.__spec__ = spec
        module.__loader__ = _LOADER
        module.__package__ = spec.parent
        module.__file__ = spec.origin
        module.__dict__["__cached__"] = spec.cached
        _LOADER.exec_module(module)
        setattr(folder, own, module)


def _folder(name: str) -> "ModuleType":
    """Make the package `name` of one of FOLDERS."""
    module = sys.modules[name] = _Module(name)
    module.__spec__ = spec = _package(name)
    module.__loader__ = _LOADER
    module.__package__ = name
    module.__dict__["__path__"] = spec.submodule_search_locations
    return module


def _package(name: str) -> ModuleSpec:
    """What the import system has to know of the package `name` of one of FOLDERS."""
    spec = ModuleSpec(name, _LOADER, is_package=True)
    spec.submodule_search_locations = [_SOURCES + name[len(_PACKAGE) - 1 :].replace(".", "/")]
    return spec


def _header(status: posix.stat_result) -> bytes:
    """The header of byte code that was made from the source with this `status`."""
    return (
        _BY_TIME
        + (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little")
        + (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    )


_LOADER = Loader()
