"""Packages, installed for real in a view of the file system that the host never sees."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.places import ROOT

from .podman import World
from .policy import UNCONFINED, write

LIBEXEC = Path("/usr/libexec/oci-bpf-hook")
PACKAGE = LIBEXEC / "oci_bpf_hook"
HOOK_JSON = Path("/usr/share/containers/oci/hooks.d/oci-bpf-hook.json")
NEWER = "9.0.0"
# All modules lay in one folder then, and there was no guard.
FLAT = "6fb31da7def0acc8967defcf57c26d20544a7ed0"
EPOCH = "1750000000"
# What the README has first, and the built-in rules allow.
ASK = {
    "io.bpffs.delegate_cmds": "map_create:prog_load:btf_load",
    "io.bpffs.delegate_maps": "hash",
    "io.bpffs.delegate_progs": "socket_filter:xdp",
    "io.bpffs.delegate_attachs": "cgroup_inet_ingress",
}
# Where no container is to be seen that anybody else runs on this host.
ALONE = ("unshare", "--pid", "--fork", "--mount-proc", "--")
MOUNTED = "delegate_cmds=map_create:prog_load:btf_load"


def run(*command: str, cwd: Path = ROOT, epoch: str | None = None) -> str:
    """What the command prints on standard output; it has to succeed.

    `epoch` is SOURCE_DATE_EPOCH, the date of what is built.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    if epoch:
        environment["SOURCE_DATE_EPOCH"] = epoch
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def source_of(version: str, directory: Path) -> Path:
    """A copy of this tree below `directory` that says it is `version`, with a module more."""
    tree = directory / "tree"
    tree.mkdir()
    names = ("oci_bpf_hook", "schema", "hooks.d", "contrib", "docs", ".ci", "Makefile")
    files = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")
    run("cp", "-r", *(str(ROOT / name) for name in (*names, *files)), str(tree))
    _call(tree, version)
    (tree / "oci_bpf_hook" / "of_another_version.py").write_text("")
    return tree


def flat_source(version: str, directory: Path) -> Path:
    """The tree of the commit FLAT, below `directory`, that says it is `version`."""
    tree = directory / "flat"
    tree.mkdir()
    # Whosever the checkout is.
    git = ("git", "-c", "safe.directory=*", "-C", str(ROOT))
    there = subprocess.run([*git, "cat-file", "-e", FLAT], capture_output=True, check=False)
    if there.returncode:
        fail = pytest.fail if "CI" in os.environ else pytest.skip
        fail(f"the commit {FLAT} isn't in this checkout; run git fetch --unshallow")
    run("sh", "-euc", '"$@" | tar -x -C "$0"', str(tree), *git, "archive", FLAT)
    _call(tree, version)
    return tree


def _call(tree: Path, version: str) -> None:
    init = tree / "oci_bpf_hook" / "__init__.py"
    init.write_text(re.sub('(?<=__version__ = ").*(?=")', version, init.read_text()))


def package(directory: Path, suffix: str) -> str:
    """The one file in `directory` with the `suffix`."""
    (path,) = directory.glob(f"*.{suffix}")
    return str(path)


def manager(kind: str, host: Path) -> tuple[list[str], list[str]]:
    """How the package is installed or upgraded, and how it is removed."""
    # rpm's own record is elsewhere, and knows no package of Debian's.
    rpm = ["rpm", "--nodeps", "--dbpath", str(host / "db")]
    return {
        "deb": (["dpkg", "-i"], ["dpkg", "-r", "oci-bpf-hook"]),
        "rpm": ([*rpm, "-U", "--oldpackage"], [*rpm, "-e", "oci-bpf-hook"]),
    }[kind]


@contextmanager
def fresh(directory: Path) -> Iterator[None]:
    """A host on which nothing of ours has been: /usr, /etc and where package managers write.

    But for its administrator's policy, the built-in rules without the guard, which takes BPF LSM.
    What is written there is in `directory`, and gone afterwards.
    """
    mounted = [str(directory)]
    # An overlay's upper layer must not itself be on an overlay, as /tmp is on some CI machines.
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(directory))
    try:
        for target in ("/usr", "/var/lib/dpkg", "/var/cache"):
            upper = directory / target.strip("/").replace("/", "-")
            work = upper.with_suffix(".work")
            upper.mkdir()
            work.mkdir()
            options = f"lowerdir={target},upperdir={upper},workdir={work},volatile"
            run("mount", "-t", "overlay", "overlay", "-o", options, target)
            mounted.append(target)
        # /etc is an overlay already, and the kernel stacks no more than two.
        run("cp", "-a", "/etc", str(directory / "etc"))
        (directory / "log").mkdir()
        (directory / "man-db").mkdir()
        # man-db's word for it: no index of all of the host's pages after each package.
        for name, target in (("etc", "/etc"), ("log", "/var/log"), ("man-db", "/var/lib/man-db")):
            run("mount", "--bind", str(directory / name), target)
            mounted.append(target)
        shutil.rmtree("/etc/oci-bpf-hook", ignore_errors=True)
        write(UNCONFINED)
        yield
    finally:
        for target in reversed(mounted):
            # Programs of /usr/bin that are still ending keep it busy.
            run("umount", "--lazy", target)


@contextmanager
def podman_as_installed() -> Iterator[World]:
    """podman that looks for hooks where it does by itself."""
    with World() as world:
        conf = world.directory / "containers.conf"
        conf.write_text(re.sub("(?m)^hooks_dir.*\n", "", conf.read_text()))
        yield world


def granted(world: World) -> bool:
    """Whether a container starts with the BPF that it asks for; otherwise it starts without."""
    done = world.run("crun", command=["cat", "/proc/mounts"], annotations=ASK)
    assert done.returncode == 0, done.stderr
    return MOUNTED in done.stdout


@contextmanager
def booted() -> Iterator[None]:
    """What says that systemd runs, which it doesn't: as in a chroot."""
    place = Path("/run/systemd/system")
    made = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made:
            place.rmdir()


def written(directory: Path) -> set[str]:
    """Every file that has been put into /usr, and all that is in /etc and in /var/log.

    `directory` is fresh()'s.  Records of dpkg's own aren't counted.
    """
    upper = directory / "usr"
    # What is a character device there is a file that was removed.
    found = run("find", str(upper), "!", "-type", "d", "!", "-type", "c", "-printf", "/usr/%P\\0")
    found += run("find", "/etc", "/var/log", "-print0")
    return {path for path in found.split("\0") if path and not path.startswith("/var/log/dpkg")}


def compiled(source: Path) -> Path:
    """Where the byte code of `source` is."""
    return source.parent / "__pycache__" / f"{source.stem}.cpython-{_MINOR}.pyc"


def stale() -> list[Path]:
    """The modules of the installed package that Python would compile again at each start."""
    found = []
    for source in PACKAGE.rglob("*.py"):
        code = compiled(source)
        # 4 bytes each: magic number, flags, the source's time and size.
        header = code.read_bytes()[8:16] if code.exists() else b""
        status = source.stat()
        wanted = int(status.st_mtime).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
        if header != wanted:
            found.append(source)
    return found


_MINOR = run("/usr/bin/python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])").strip()


def traced(trace: Path) -> tuple[str, ...]:
    """The command that has another one's renames and removals written to `trace`."""
    calls = "trace=rename,renameat,unlink,unlinkat,rmdir"
    options = ("-f", "--seccomp-bpf", "-qq", "-y", "-s", "300", "-e", calls)
    return ("strace", *options, "-o", str(trace), "--")


def changes(trace: Path) -> list[tuple[str, str]]:
    """The renames and removals in `trace`: what was done, and the path it ended at."""
    found = []
    for line in trace.read_text().splitlines():
        call = _CALL.search(line)
        if call:
            found.append((call[1], os.path.join(call[2] or "", call[3])))
    return found


# By the last string it has, and if that is relative by the directory in front of it.
_CALL = re.compile(
    r"""\b(rename|unlink|rmdir)(?:at)?\(.*?(?:\d+<([^>]*)>, )?"([^"]+)"(?:, \w+)?\)\s+= 0"""
)
