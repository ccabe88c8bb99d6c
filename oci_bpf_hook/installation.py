"""Where everything is installed, and in which order: `make install` and the command are this.

An engine skips a hook whose program is missing without a word, and a JSON file that isn't valid
stops every container: so the program comes first and the JSON last, each file whole or not at all,
and away they go the other way round.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import cdi, whole
from .errors import USAGE, HookError
from .record import Record

STAGES = ("createRuntime", "createContainer")
# The interpreter that the launcher names; what is byte-compiled is for this one.
PYTHON = "/usr/bin/python3"
_NEEDED = "the hook takes python3, 3.11 or later"
# Its version, and if that will do how it marks what is compiled for it.
_ABOUT = """
import sys
print("%d.%d" % sys.version_info[:2], sys.implementation.cache_tag * (sys.version_info >= (3, 11)))
"""
_PACKAGE = Path(__file__).parent
_NAMES = {
    "createRuntime": "oci-bpf-hook.json",
    "createContainer": "oci-bpf-hook-createContainer.json",
}
# Directories of a checkout that are in the package when it is installed.
_RESOURCES = {
    "hooks": "hooks.d",
    "schema": "schema",
    "man": "contrib/man",
    "completions": "contrib/completions",
    "systemd": "contrib/systemd",
    "podman": "contrib/podman",
}
# Of the modules, what they read, and the guard's objects.
_SUFFIXES = (".py", ".json", ".yaml", ".o")
_PRECREATE = "oci-bpf-hook-precreate.json"
_COMMAND = """\
#!/usr/bin/python3 -I
# The command oci-bpf-hook: its package is in ../libexec, wherever this is.
import os.path
import sys

here = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(here), "libexec", "oci-bpf-hook"))

from oci_bpf_hook.cli import main  # noqa: E402

sys.exit(main())
"""


class Layout(Record):
    """Where things go: below `prefix`, as whoever runs them will see it, and that below `top`."""

    __slots__ = ("prefix", "top")
    prefix: str
    top: str

    def path(self, *names: str) -> Path:
        """Where the file is put."""
        return Path(f"{self.top}{self.prefix}", *names)

    @property
    def libexec(self) -> Path:
        """The package's directory."""
        return self.path("libexec", "oci-bpf-hook")

    @property
    def program(self) -> str:
        """The hook's program, as whoever runs it will see it."""
        return f"{self.prefix}/libexec/oci-bpf-hook/oci-bpf-hook"

    @property
    def hooks(self) -> Path:
        """Where podman and CRI-O look for hooks."""
        return self.path("share", "containers", "oci", "hooks.d")

    @property
    def precreate(self) -> Path:
        """Where podman alone looks, and only if it is told to: the stage breaks all others."""
        return self.path("share", "containers", "oci", "precreate.d")


class Step(Record):
    """One thing to do to `path`: `action` is write, remove, compile, or off for the guard.

    `content` and `mode` are what a file is to have.
    """

    __slots__ = ("action", "content", "mode", "path")
    action: str
    path: Path
    content: bytes
    mode: int

    def needed(self) -> bool:
        """Whether there is anything to do."""
        if self.action == "write":
            return not whole.is_written(self.path, self.content, self.mode)
        try:
            self.path.lstat()
        except FileNotFoundError:
            return self.action == "compile"
        return self.action != "compile" or not _is_compiled(self.path)

    def describe(self) -> str:
        """The step as a line."""
        mode = f" ({self.mode:04o})" if self.action == "write" else ""
        return f"{self.action} {self.path}{mode}"

    def execute(self) -> None:
        """Do it.  Raises OSError, and HookError if the interpreter can't compile."""
        if self.action == "write":
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole.write(self.path, self.content, mode=self.mode)
        elif self.action == "compile":
            _compile(self.path, self.content.decode())
        elif self.action == "off":
            from .lsm.load import turn_off

            turn_off()
        elif self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink()


def install(
    layout: Layout, stage: str, engine: str | None, *, precreate: bool = False
) -> list[Step]:
    """The steps that install everything, in their order.  Raises OSError.

    `stage` is where the hook is registered, `engine` the name that it is told; `precreate` has it
    at podman's stage of that name as well.
    """
    modules = list(_modules(layout))
    resources = list(_resources(layout))
    known = {step.path for step in (*modules, *resources)}
    return [
        *modules,
        *resources,
        *_stale(layout, known),
        Step(
            action="compile",
            path=layout.libexec / "oci_bpf_hook",
            content=f"{layout.prefix}/libexec/oci-bpf-hook/oci_bpf_hook".encode(),
            mode=0,
        ),
        _write(layout.libexec / "oci-bpf-hook", resource("hooks") / "oci-bpf-hook", mode=0o755),
        Step(
            action="write",
            path=layout.path("bin", "oci-bpf-hook"),
            content=_COMMAND.encode(),
            mode=0o755,
        ),
        *(_write(path, source) for source, path in _documentation(layout)),
        *_units(layout),
        Step(
            action="write",
            path=layout.hooks / _NAMES[stage],
            content=_hook(layout, resource("hooks") / _NAMES[stage], engine),
            mode=0o644,
        ),
        # It adds nothing where the hook itself isn't run.
        *([_precreate(layout, engine)] if precreate else ()),
    ]


def uninstall(layout: Layout) -> list[Step]:
    """The steps that remove everything again, in their order."""
    from .lsm.load import PINS

    asking = [layout.precreate / _PRECREATE, *(layout.hooks / _NAMES[stage] for stage in STAGES)]
    asking += devices(layout.program, layout.top)
    paths = [step.path for step in _units(layout)]
    paths += [path for _, path in reversed(list(_documentation(layout)))]
    paths += [layout.path("bin", "oci-bpf-hook"), layout.libexec]
    # Once nobody is granted anything that it would have to hold.
    off = Step(action="off", path=Path(PINS), content=b"", mode=0)
    return [*map(_remove, asking), *([off] if has_guard(layout) else ()), *map(_remove, paths)]


def has_guard(layout: Layout) -> bool:
    """Whether the guard, of which a host has one, goes with what is installed there."""
    return not layout.top and layout.libexec.is_dir()


def lacks_guard() -> bool:
    """Whether what would be installed from here has no guard, since nobody has compiled it."""
    from .lsm.lists import OBJECT

    return not OBJECT.exists()


def devices(program: str, top: str = "") -> list[Path]:
    """Our CDI files, below `top`, by which engines run the hook's `program`."""
    return [path for path in _running(program, top) if path.name == cdi.FILE]


def kept(program: str, top: str = "") -> list[str]:
    """What has to go before the hook's `program` may, in sentences: CDI files that are not ours.

    A device whose hook is missing stops every container that has it.
    """
    return [
        f"{path} has the hook {program}, and no container with a device of that file starts once "
        "the hook is gone; take it out of there first"
        for path in _running(program, top)
        if path.name != cdi.FILE
    ]


def _running(program: str, top: str) -> Iterator[Path]:
    """The CDI files, where engines look for them below `top`, that name the `program`."""
    named = re.compile(rb"(?<![\w./-])" + re.escape(os.fsencode(program)) + rb"(?![\w./-])")
    for directory in cdi.DIRECTORIES:
        for path in sorted(Path(f"{top}{directory}").glob("*")):
            read = path.suffix in (".json", ".yaml") and path.is_file()
            if read and named.search(path.read_bytes()):
                yield path


def untrusted(steps: Sequence[Step], layout: Layout) -> list[str]:
    """What of the directories that the steps write to isn't ours alone, in sentences.

    What is in there runs as root in front of every container that asks.
    """
    problems: dict[str, None] = {}
    top = Path(layout.top or "/")
    for directory in dict.fromkeys(step.path.parent for step in steps):
        for path in _up_to(directory, top):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if status.st_uid not in (0, os.geteuid()):
                problems[f"{path} isn't root's, and what is installed below it runs as root"] = None
            elif status.st_mode & 0o022:
                problems[
                    f"others than root can write {path}, and what is installed below it runs as "
                    f"root; chmod go-w {path}"
                ] = None
    return list(problems)


def _up_to(directory: Path, top: Path) -> Iterator[Path]:
    """`directory` and those above it as far as `top`."""
    for path in (directory, *directory.parents):
        yield path
        if path == top:
            return


def resource(name: str) -> Path:
    """One of the directories beside the modules: in the package, or in its checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / _RESOURCES[name]


def _modules(layout: Layout) -> Iterator[Step]:
    for source in sorted(_PACKAGE.rglob("*")):
        relative = source.relative_to(_PACKAGE)
        if relative.parts[0] in _RESOURCES or source.suffix not in _SUFFIXES:
            continue
        yield _write(layout.libexec / "oci_bpf_hook" / relative, source)


def _resources(layout: Layout) -> Iterator[Step]:
    for name in _RESOURCES:
        for source in sorted(resource(name).iterdir()):
            if source.is_file():
                path = layout.libexec / "oci_bpf_hook" / name / source.name
                yield _write(path, source, mode=0o755 if source.stat().st_mode & 0o100 else 0o644)


def _stale(layout: Layout, known: set[Path]) -> Iterator[Step]:
    """What another version has left in the package."""
    for path in sorted((layout.libexec / "oci_bpf_hook").rglob("*")):
        source = path
        if path.parent.name == "__pycache__":
            source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
        if source not in known and not path.is_dir():
            yield _remove(path)


def _documentation(layout: Layout) -> Iterator[tuple[Path, Path]]:
    """The man pages and completions, and where each goes."""
    for page in sorted(resource("man").iterdir()):
        yield page, layout.path("share", "man", f"man{page.suffix[1:]}", page.name)
    for name, *where in (
        ("oci-bpf-hook.bash", "bash-completion", "completions", "oci-bpf-hook"),
        ("_oci-bpf-hook", "zsh", "site-functions", "_oci-bpf-hook"),
        ("oci-bpf-hook.fish", "fish", "vendor_completions.d", "oci-bpf-hook.fish"),
    ):
        yield resource("completions") / name, layout.path("share", *where)


def _units(layout: Layout) -> Iterator[Step]:
    """The broker's units and the guard's, with the command where it is."""
    for source in sorted(resource("systemd").iterdir()):
        text = source.read_text("utf-8").replace("/usr/bin/oci-", f"{layout.prefix}/bin/oci-")
        path = layout.path("lib", "systemd", "system", source.name)
        yield Step(action="write", path=path, content=text.encode(), mode=0o644)


def _remove(path: Path) -> Step:
    return Step(action="remove", path=path, content=b"", mode=0)


def _write(path: Path, source: Path, *, mode: int = 0o644) -> Step:
    return Step(action="write", path=path, content=source.read_bytes(), mode=mode)


def _precreate(layout: Layout, engine: str | None) -> Step:
    content = _hook(layout, resource("podman") / _PRECREATE, engine)
    path = layout.precreate / _PRECREATE
    return Step(action="write", path=path, content=content, mode=0o644)


def _hook(layout: Layout, source: Path, engine: str | None) -> bytes:
    """The JSON that registers the hook, as `source` is with the hook where it is installed."""
    loaded = json.loads(source.read_bytes())
    hook = loaded["hook"]
    hook["path"] = layout.program
    if engine:
        hook["args"] += ["--engine", engine]
    return (json.dumps(loaded, indent=4) + "\n").encode()


def _is_compiled(path: Path) -> bool:
    """Whether each module in `path` has a form compiled for PYTHON that isn't older.

    Raises HookError (USAGE) if that is none for the hook.
    """
    tag = _tag()
    for source in path.rglob("*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
        if not compiled.exists() or compiled.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return False
    return True


def _compile(path: Path, shown: str) -> None:
    _tag()
    # Whatever SOURCE_DATE_EPOCH is: by hash each start would read the sources as well.
    by_time = ("--invalidation-mode", "timestamp")
    done = _python("-m", "compileall", "-q", "-f", *by_time, "-d", shown, str(path))
    if done.returncode:
        raise HookError(USAGE, f"{PYTHON} can't compile {path}: {done.stdout.strip()}")


def _tag() -> str:
    """How PYTHON marks what is compiled for it.  Raises HookError (USAGE) if it is too old."""
    # An older one could compile it all, and each container that asks would end in a traceback.
    version, _, tag = _python("-c", _ABOUT).stdout.strip().partition(" ")
    if not tag:
        raise HookError(USAGE, f"{PYTHON} is Python {version or '?'}; {_NEEDED}")
    return tag


def _python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [PYTHON, "-I", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        raise HookError(USAGE, f"{PYTHON}: {error.strerror}; {_NEEDED}") from None
