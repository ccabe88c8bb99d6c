"""The shim in namespaces of its own: programs in them with it and without, and a bpffs delegated.

The hook delegates as it does for a container. No engine runs, so a program is started within
milliseconds. It sees the host's files, but its /sys/fs/bpf is the delegated one.
"""

import functools
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .engines import require, run
from .places import ROOT
from .podman import World, as_root
from .scratch import Scratch, assert_failed, io
from .scratch import install as install_all

SOURCES: Final = ROOT / "tests" / "shim"
NAME: Final = "libbpf-token-shim.so"
# The runtime of AddressSanitizer wants to be the first library, or one to be so called: its reason,
# that it has to come before libc in the search for functions, doesn't hold for syscall().
BESIDE: Final = "with-libasan.so"
# What the programs of tests/shim use, and no more.
SMALL: Final = {
    "delegate_cmds": "map_create:prog_load:btf_load:btf_get_fd_by_id",
    "delegate_maps": "array",
    "delegate_progs": "socket_filter",
    "delegate_attachs": "cgroup_inet_ingress",
}
_WARNINGS: Final = ("-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")
# musl's headers don't have the kernel's, which are in directories of the host's own libc.
_KERNEL: Final = [
    f"-idirafter{path}"
    for path in ("/usr/include", *map(str, Path("/usr/include").glob("*-linux-gnu")))
]
COMPILERS: Final = {"glibc": ["cc"], "musl": ["musl-gcc", *_KERNEL]}


def build(directory: Path) -> None:
    """Build the shim into `directory`, for all machines."""
    require(run([str(ROOT / "contrib" / "build-shim"), str(directory)]))


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="shim-", dir="/tmp")
    Path(directory.name).chmod(0o755)
    return directory


def kept() -> Path:
    """A directory for the session, where a container's root can read, wherever the checkout is."""
    return Path(_directory().name)


@functools.cache
def library() -> Path:
    """The shim for this machine, built once a session, at a path like the one in a container."""
    directory = kept() / BESIDE
    directory.mkdir(mode=0o755)
    build(directory)
    return (directory / f"libbpf-token-shim.{os.uname().machine}.so").rename(directory / NAME)


@functools.cache
def program(name: str, *flags: str, libc: str = "glibc") -> Path:
    """The program of the source tests/shim/NAME.c, compiled once a session."""
    words = re.findall(r"\w+", " ".join([name, libc, *flags]))
    target = kept() / "-".join(words)
    source = str(SOURCES / f"{name}.c")
    require(run([*COMPILERS[libc], *_WARNINGS, *flags, "-o", str(target), source]))
    target.chmod(0o755)
    return target


class Place:
    """Namespaces with a delegated bpffs on /sys/fs/bpf, in which programs run as their root."""

    def __init__(self, container: Scratch) -> None:
        self.container = container

    def run(
        self,
        *command: str | Path,
        shim: bool,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `command`, with the shim preloaded or without; `prefix` is a command that runs it."""
        variables = {**(env or {}), **({"LD_PRELOAD": str(library())} if shim else {})}
        words = [f"{name}={value}" for name, value in variables.items()]
        return self.container.enter(*prefix, "env", *words, *map(str, command))

    def output(self, *command: str | Path, shim: bool, env: Mapping[str, str] | None = None) -> str:
        """What the command prints; it succeeds, and says nothing else."""
        done = self.run(*command, shim=shim, env=env)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@contextmanager
def place(lists: Mapping[str, str] = SMALL, *, network: bool = False) -> Iterator[Place]:
    """Such namespaces, in which the `lists` are delegated; with `network` one of their own."""
    with Scratch(network=network) as container:
        done = container.hook(io(**lists))
        if done.returncode:
            assert_failed(done, 0)
        bpffs = str(container.root / "sys" / "fs" / "bpf")
        require(container.enter("mount", "--bind", bpffs, "/sys/fs/bpf"))
        yield Place(container)


def install(directory: Path) -> Path:
    """Copy what is installed, with the shim, to a new `directory`; the launcher in it."""
    launcher = install_all(directory)
    build(directory / "oci_bpf_hook" / "shim")
    return launcher


def image(world: World, libc: str) -> str:
    """An image of busybox's with `libc` and the program situations.c; its name."""
    root = world.directory / f"rootfs-{libc}"
    shutil.copytree(world.rootfs, root, symlinks=True)
    built = program("situations", libc=libc)
    shutil.copy(built, root / "bin" / "situations")
    # Its loader, by the name that the program has for it, and its libraries.
    if libc == "musl":
        loader = require(run(["sh", "-c", "echo /lib/ld-musl-*.so.1"])).stdout.strip()
        files = [loader]
    else:
        listed = require(run(["ldd", str(built)])).stdout
        files = re.findall(r"(?<![\w.])/[^ ]+", listed)
    for path in files:
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    archive = world.directory / f"{libc}.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".", filter=as_root)
    name = f"localhost/shim-{libc}:latest"
    world.podman("import", "--quiet", str(archive), name)
    return name
