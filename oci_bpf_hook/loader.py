"""Imports this package's modules from Python's own byte code, with four system calls each.

A good part of what the hook takes beyond a bare interpreter is importlib's generality: it
looks for six kinds of file in several places, and reads what it finds through a buffer.  Here
both files of a module follow from its name.  Byte code is taken just where importlib takes it:
made by this Python, of the source as it is now.  All else is left to importlib, which compiles
what is missing or old and writes it for the next time.

The folders that the hook takes modules from are packages whose `__init__.py` is a docstring, so
they are made here and not looked for: finding one costs as much as a module.  What each start, or
each grant, takes for certain is loaded here as well, in an order in which no module waits for
another: half of what an import costs is importlib finding out that there is nothing to be done.
"""

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

# The hook's folders, each after the one that it is in.
FOLDERS = (
    *(
        "audit",
        "bpf",
        "broker",
        "container",
        "delegation",
        "guard",
        "hook",
        "kernel",
        "mount",
        "oci",
    ),
    *("policy", "policy.store", "text"),
)

# The modules that each start takes, and those that a grant takes too, each after what it imports.
ASKED = (
    *("values", "errors", "bpf.names", "delegation.annotations", "text.strict_json"),
    *("oci.state", "hook.process", "hook.main"),
)
GRANT = (
    *("kernel.syscalls", "files", "container.namespaces", "policy.compiled", "policy.subject"),
    *("syslog", "audit.write", "audit.case", "paths", "policy.store.cache", "bpf.type_facts"),
    *("delegation.masks", "policy.decide", "delegation.lint", "mount.container_half"),
    *("mount.child", "mount.host_half"),
)

_PACKAGE = f"{__package__}."
_SOURCES = __file__.rpartition("/")[0]
# Where importlib keeps byte code of this file, and how it names that of any other.
_CACHE, _, _SUFFIX = (__spec__.cached or "").removeprefix(_SOURCES).rpartition("loader")
# The magic and no flags: byte code that goes by its source's time and size.
_BY_TIME = MAGIC_NUMBER + bytes(4)
_HEADER = 16
# Nothing in this package is that long; what is as long may be longer.
_LONGEST = 1 << 15
_Module = type(sys)


class Loader(_Base):
    """For the beginning of sys.meta_path: finds and loads modules of this package."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> ModuleSpec | None:
        """The module `name` and its code, or None where importlib has to see to it."""
        if not name.startswith(_PACKAGE):
            return None
        folder, _, stem = name[len(_PACKAGE) - 1 :].replace(".", "/").rpartition("/")
        source = f"{_SOURCES}{folder}/{stem}.py"
        compiled = f"{_SOURCES}{folder}{_CACHE}{stem}{_SUFFIX}"
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


def install() -> None:
    """Have this package's modules imported this way, with the hook's folders and ASKED there."""
    for folder in FOLDERS:
        name = _PACKAGE + folder
        module = sys.modules[name] = _Module(name)
        spec = module.__spec__ = ModuleSpec(name, None, is_package=True)
        module.__package__ = name
        module.__path__ = spec.submodule_search_locations = [_SOURCES + _below(folder)]
    sys.meta_path.insert(0, _LOADER)
    ahead(ASKED)


def ahead(names: "Sequence[str]") -> None:
    """Load these modules, those of them that aren't there, as if each were imported.

    It does nothing where the package is imported in the ordinary way.  What has to be compiled
    first is left out, and is imported by whoever needs it.
    """
    if _LOADER not in sys.meta_path:
        return
    for stem in names:
        name = _PACKAGE + stem
        if name in sys.modules or (spec := _LOADER.find_spec(name)) is None:
            continue
        module = sys.modules[name] = _Module(name)
        module.__spec__ = spec
        module.__loader__ = _LOADER
        module.__package__ = spec.parent
        module.__file__ = spec.origin
        module.__dict__["__cached__"] = spec.cached
        _LOADER.exec_module(module)
        parent, _, own = name.rpartition(".")
        setattr(sys.modules[parent], own, module)


def _below(folder: str) -> str:
    """The path of a folder below the package's own."""
    return f"/{folder}".replace(".", "/")


def _header(status: posix.stat_result) -> bytes:
    """What byte code begins with that was made of the source with this `status`."""
    return (
        _BY_TIME
        + (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little")
        + (status.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    )


_LOADER = Loader()
