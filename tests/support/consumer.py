"""A real libbpf in a real container: it loads the objects of tests/consumer through its token.

The libbpf is the one in the wheel pylibbpf, whose extension module has the whole C API; Debian 12's
own knows no tokens. tests/consumer/load.py drives it in the container, with the host's Python and
C library, which are bound into the container read-only.
"""

import importlib.util
import json
import os
import shutil
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .engines import require, run
from .podman import World

SOURCES: Final = Path(__file__).resolve().parent.parent / "consumer"
_LOADER: Final = SOURCES / "load.py"
# What runs in the container has the host's paths there too. /lib and /lib64, where the ELF
# interpreter is looked for, are links into /usr on most hosts.
_SYSTEM: Final = tuple(name for name in ("/usr", "/lib", "/lib64") if Path(name).exists())
_PYTHON: Final = "/usr/bin/python3"
_INSIDE: Final = Path("/consumer")
_UNPRIVILEGED: Final = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
# What libbpf's headers call this machine, to know its registers by.
_MACHINE: Final = {"x86_64": "x86", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
MACHINE: Final = f"-D__TARGET_ARCH_{_MACHINE}"
CLANG: Final = (
    *("clang", "-target", "bpf", "-g", "-O2"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", MACHINE),
    # clang for BPF doesn't look into Debian's directory for the machine, where asm/types.h is.
    *("-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"),
)

# What became of an object. "result" is "ok" or an errno's name, and "log" libbpf's warnings. If it
# is "ok", "token" says whether libbpf has one, and by name
#   "maps"      have their "type", "flags", whether they have "btf", and a digest of their "value"
#               if libbpf has made them for variables,
#   "programs"  their "type", "attach" type, "tag" (the kernel's digest of the instructions), how
#               many "maps" they hold, the "helpers" they call and whether they have "btf",
#   "attached"  what was to be attached to something of the container's: "ok" or an errno's name.
# The attach type is libbpf's: the section's, or a struct_ops program's from the kernel's BTF. What
# a program was loaded with can be 0 instead, and the kernel tells nobody.
Report = dict[str, Any]


def missing() -> list[str]:
    """Return what this host lacks for a consumer, by the names to install."""
    lacks = {
        # With 0, socket filters and the simple maps take no token, and so no bit.
        "kernel.unprivileged_bpf_disabled=2": _UNPRIVILEGED.read_text(encoding="utf-8") == "0\n",
        "clang": shutil.which(CLANG[0]) is None,
        "libbpf-dev": not Path("/usr/include/bpf/bpf_helpers.h").exists(),
        "pylibbpf 0.0.6": importlib.util.find_spec("pylibbpf") is None,
    }
    return [name for name, lacking in lacks.items() if lacking]


def wheel() -> Path:
    """The directory of the wheel's package; its own libraries are beside it."""
    spec = importlib.util.find_spec("pylibbpf")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def library() -> Path:
    """The shared library with libbpf's API."""
    (found,) = wheel().glob("pylibbpf.*.so")
    return found


class Consumer:
    """libbpf and objects to load, for the containers of one world."""

    def __init__(self, world: World, objects: Iterable[str]) -> None:
        self._world = world
        self._directory = world.directory / "consumer"
        self._directory.mkdir(mode=0o755)
        self._library = self._copy_wheel()
        shutil.copy(_LOADER, self._directory)
        for name in objects:
            target = str(self._directory / f"{name}.o")
            source = str(SOURCES / f"{name}.bpf.c")
            require(run([*CLANG, "-o", target, "-c", source]))

    def _copy_wheel(self) -> Path:
        # Where the container's root can reach it, and without the odd characters that the path of
        # the checkout may have. The libraries of the wheel are beside its package.
        package = wheel()
        for directory in (package, package.with_name("pylibbpf.libs")):
            libraries = shutil.ignore_patterns("*.py", "*.pyc", "__pycache__")
            shutil.copytree(directory, self._directory / directory.name, ignore=libraries)
        return library().relative_to(package.parent)

    def _command(self, directory: Path, objects: Iterable[str], *options: str) -> list[str]:
        loader, library = str(directory / _LOADER.name), str(directory / self._library)
        paths = [str(directory / f"{name}.o") for name in objects]
        return [_PYTHON, "-I", "-S", "-B", loader, *options, library, *paths]

    def path(self, name: str) -> str:
        """The compiled object `name`."""
        return str(self._directory / f"{name}.o")

    def loading(self, objects: Iterable[str]) -> list[str]:
        """The command that loads the objects on the host, and prints their reports."""
        return self._command(self._directory, objects)

    def on_the_host(self, objects: Iterable[str]) -> dict[str, Report]:
        """Load the objects as the host's root, without a token."""
        command = self._command(self._directory, objects)
        # An empty path keeps libbpf from looking for a token.
        return _reports(require(run(command, env={"LIBBPF_BPF_TOKEN_PATH": ""})).stdout)

    def in_a_container(
        self,
        objects: Iterable[str],
        annotations: Mapping[str, str],
        *,
        capabilities: Sequence[str],
        attach: bool = False,
    ) -> dict[str, Report]:
        """Load the objects in a new container that has these annotations and capabilities."""
        volumes = [f"--volume={name}:{name}:ro" for name in _SYSTEM]
        done = self._world.run(
            "crun",
            *volumes,
            f"--volume={self._directory}:{_INSIDE}:ro",
            annotations=annotations,
            command=self._command(_INSIDE, objects, *(["--attach"] if attach else [])),
            capabilities=capabilities,
        )
        return _reports(require(done).stdout)


def _reports(output: str) -> dict[str, Report]:
    reports: dict[str, Report] = json.loads(output)
    return {name.removesuffix(".o"): report for name, report in reports.items()}
