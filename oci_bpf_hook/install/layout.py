"""Says what is installed where, and in which order, for `make install` and the command.

An engine silently skips a hook whose program is missing, and an invalid JSON file stops every
container.  So the program is installed first and the JSON last, each file whole or not at all, and
they are removed in the opposite order.

During an upgrade the hook may start between any two steps, and then a container either gets what
the hook grants it or doesn't start.  The launcher is first: it says what is wrong if its modules
can't be imported, and an older launcher would end in a traceback.  `loader.py` is the last of the
modules, so that the launcher stops at an older one's until the others are there.  dpkg and rpm
put the launcher first as well, since they go by the order of the names.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..oci import cdi
from ..resources import PACKAGE, RESOURCES, resource
from ..values import Value
from . import containerd
from .registration import registration
from .steps import Step, copy, removal

STAGES = ("createRuntime", "createContainer")
_NAMES = {
    "createRuntime": "oci-bpf-hook.json",
    "createContainer": "oci-bpf-hook-createContainer.json",
}
# The suffixes of the modules, of the files that they read, of the guard's objects and of the shim.
_SUFFIXES = (".py", ".json", ".yaml", ".o", ".so")
_PRECREATE = "oci-bpf-hook-precreate.json"
_COMMAND = """\
#!/usr/bin/python3 -I
# The command oci-bpf-hook: its package is in ../libexec, wherever this is.
import os.path
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(here), "libexec", "oci-bpf-hook"))

try:
    from oci_bpf_hook.cli.main import main
except ImportError as error:
    sys.stderr.write(
        f"oci-bpf-hook: its modules can't be imported, because they are being upgraded or the "
        f"installation isn't complete; try again, and if that fails too, install it again: {error}"
        " (exit code 70)\\n"
    )
    sys.exit(70)

sys.exit(main())
"""


class Layout(Value):
    """Where files are put: below `prefix`, which is a path of the installed system.

    `top` is a directory that becomes a package (--destdir) and is put in front of every path, or is
    empty.
    """

    __slots__ = ("prefix", "top")
    prefix: str
    top: str

    def path(self, *names: str) -> Path:
        """The path, with `top` in front, at which the file `names` below the prefix is written."""
        return Path(f"{self.top}{self.prefix}", *names)

    @property
    def libexec(self) -> Path:
        """The package's directory."""
        return self.path("libexec", "oci-bpf-hook")

    @property
    def program(self) -> str:
        """The path of the hook's program on the installed system."""
        return f"{self.prefix}/libexec/oci-bpf-hook/oci-bpf-hook"

    @property
    def hooks(self) -> Path:
        """The directory in which podman and CRI-O look for hooks."""
        return self.path("share", "containers", "oci", "hooks.d")

    @property
    def precreate(self) -> Path:
        """The directory for podman's precreate stage.

        podman looks there only if it is told to.  Other engines must not see these files, since a
        stage that they don't know is an error for them.
        """
        return self.path("share", "containers", "oci", "precreate.d")


def install(
    layout: Layout, stage: str, engine: str | None, *, precreate: bool = False
) -> list[Step]:
    """The steps that install everything, in their order.  Raises OSError, HookError.

    `stage` is the stage at which the hook is registered, and `engine` the value of its option
    --engine.  With `precreate` it is registered at podman's precreate stage as well.
    """
    modules = list(_modules(layout))
    resources = list(_resources(layout))
    known = {step.path for step in (*modules, *resources)}
    return [
        copy(layout.libexec / "oci-bpf-hook", resource("hooks") / "oci-bpf-hook", mode=0o755),
        Step(
            action="write",
            path=layout.path("bin", "oci-bpf-hook"),
            content=_COMMAND.encode(),
            mode=0o755,
        ),
        *resources,
        *modules,
        *_stale(layout, known),
        Step(
            action="compile",
            path=layout.libexec / "oci_bpf_hook",
            content=f"{layout.prefix}/libexec/oci-bpf-hook/oci_bpf_hook".encode(),
            mode=0,
        ),
        *(copy(path, source) for source, path in _documentation(layout)),
        *_units(layout),
        *(containerd.drop_in(layout.top) if engine == "containerd" else ()),
        Step(
            action="write",
            path=layout.hooks / _NAMES[stage],
            content=registration(
                resource("hooks") / _NAMES[stage],
                layout.program,
                engine,
                layout.hooks / _NAMES[stage],
            ),
            mode=0o644,
        ),
        # This comes last, since what it adds has no effect unless the hook itself is run.
        *([_precreate(layout, engine)] if precreate else ()),
    ]


def uninstall(layout: Layout) -> list[Step]:
    """The steps that remove everything again, in their order."""
    from ..paths import PINS

    asking = [layout.precreate / _PRECREATE, *(layout.hooks / _NAMES[stage] for stage in STAGES)]
    asking += devices(layout.program, layout.top)
    paths = [step.path for step in _units(layout)]
    paths += [path for _, path in reversed(list(_documentation(layout)))]
    paths += [layout.path("bin", "oci-bpf-hook"), layout.libexec]
    # The guard is unloaded only when the hook can't grant anything more that needs it.
    off = Step(action="off", path=Path(PINS), content=b"", mode=0)
    asked = [*map(removal, asking), *containerd.removals(layout.top)]
    return [*asked, *([off] if has_guard(layout) else ()), *map(removal, paths)]


def has_guard(layout: Layout) -> bool:
    """Whether the host's guard is to be unloaded with what is installed there."""
    return not layout.top and layout.libexec.is_dir()


def lacks_guard() -> bool:
    """Whether this checkout or package has no compiled guard to install."""
    from ..guard.lsm.lists import OBJECT

    return not OBJECT.exists()


def devices(program: str, top: str = "") -> list[Path]:
    """Our own CDI files below `top` that have engines run the hook's `program`."""
    return [path for path in _running(program, top) if path.name == cdi.FILE]


def kept(program: str, top: str = "") -> list[str]:
    """A sentence for each CDI file below `top` that isn't ours and runs the hook's `program`.

    They have to be changed before the program is removed, since a device whose hook is missing
    stops every container that has the device.
    """
    return [
        f"{path} runs the hook {program}, and once the hook is gone no container with a device of "
        "that file starts; remove the hook from the file first"
        for path in _running(program, top)
        if path.name != cdi.FILE
    ]


def _running(program: str, top: str) -> Iterator[Path]:
    """The CDI files below `top`, in the directories that engines read, that name the `program`."""
    named = re.compile(rb"(?<![\w./-])" + re.escape(os.fsencode(program)) + rb"(?![\w./-])")
    for directory in cdi.DIRECTORIES:
        for path in sorted(Path(f"{top}{directory}").glob("*")):
            read = path.suffix in (".json", ".yaml") and path.is_file()
            if read and named.search(path.read_bytes()):
                yield path


def _modules(layout: Layout) -> Iterator[Step]:
    """The modules and what they read, `loader.py` last."""
    # When git removes a folder, what it ignores stays there: that isn't the package's any more.
    folders = {path.parent for path in PACKAGE.rglob("__init__.py")}
    loader = PACKAGE / "loader.py"
    for source in sorted(PACKAGE.rglob("*"), key=lambda path: (path == loader, path)):
        relative = source.relative_to(PACKAGE)
        if relative.parts[0] in RESOURCES or source.suffix not in _SUFFIXES:
            continue
        if source.parent in folders:
            yield copy(layout.libexec / "oci_bpf_hook" / relative, source)


def _resources(layout: Layout) -> Iterator[Step]:
    for name in RESOURCES:
        for source in sorted(resource(name).iterdir()):
            if source.is_file():
                path = layout.libexec / "oci_bpf_hook" / name / source.name
                yield copy(path, source, mode=0o755 if source.stat().st_mode & 0o100 else 0o644)


def _stale(layout: Layout, known: set[Path]) -> Iterator[Step]:
    """The steps that remove the files and directories that another version has left."""
    package = layout.libexec / "oci_bpf_hook"
    folders = {parent for path in known for parent in path.parents}
    folders |= {path.parent / "__pycache__" for path in known if path.suffix == ".py"}
    for path in sorted(package.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            kept = path in folders
        elif path.parent.name == "__pycache__":
            kept = path.parent.parent / f"{path.name.partition('.')[0]}.py" in known
        else:
            kept = path in known
        # The files in a directory that is removed are removed with it.
        if not kept and path.parent in folders:
            yield removal(path)


def _documentation(layout: Layout) -> Iterator[tuple[Path, Path]]:
    """Each man page and completion, and the path at which it is installed."""
    for page in sorted(resource("man").iterdir()):
        yield page, layout.path("share", "man", f"man{page.suffix[1:]}", page.name)
    for name, *where in (
        ("oci-bpf-hook.bash", "bash-completion", "completions", "oci-bpf-hook"),
        ("_oci-bpf-hook", "zsh", "site-functions", "_oci-bpf-hook"),
        ("oci-bpf-hook.fish", "fish", "vendor_completions.d", "oci-bpf-hook.fish"),
    ):
        yield resource("completions") / name, layout.path("share", *where)


def _units(layout: Layout) -> Iterator[Step]:
    """The steps that write the broker's and the guard's units, with the command's path in them."""
    for source in sorted(resource("systemd").iterdir()):
        text = source.read_text("utf-8").replace("/usr/bin/oci-", f"{layout.prefix}/bin/oci-")
        path = layout.path("lib", "systemd", "system", source.name)
        yield Step(action="write", path=path, content=text.encode(), mode=0o644)


def _precreate(layout: Layout, engine: str | None) -> Step:
    path = layout.precreate / _PRECREATE
    content = registration(resource("podman") / _PRECREATE, layout.program, engine, path)
    return Step(action="write", path=path, content=content, mode=0o644)
