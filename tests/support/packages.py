"""Packages, installed for real in a view of the file system that the host never sees."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.places import ROOT

from .podman import World
from .policy import UNCONFINED, write

LIBEXEC = Path("/usr/libexec/oci-bpf-hook")
PACKAGE = LIBEXEC / "oci_bpf_hook"
HOOK_JSON = Path("/usr/share/containers/oci/hooks.d/oci-bpf-hook.json")


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
    init = tree / "oci_bpf_hook" / "__init__.py"
    init.write_text(re.sub('(?<=__version__ = ").*(?=")', version, init.read_text()))
    (tree / "oci_bpf_hook" / "of_another_version.py").write_text("")
    return tree


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


def written(directory: Path) -> set[str]:
    """Every file that has been put into /usr, and all that is in /etc and in /var/log.

    `directory` is fresh()'s.  Records of dpkg's own aren't counted.
    """
    upper = directory / "usr"
    # What is a character device there is a file that was removed.
    found = run("find", str(upper), "!", "-type", "d", "!", "-type", "c", "-printf", "/usr/%P\\0")
    found += run("find", "/etc", "/var/log", "-print0")
    return {path for path in found.split("\0") if path and not path.startswith("/var/log/dpkg")}


def stale() -> list[Path]:
    """The modules of the installed package that Python would compile again at each start."""
    found = []
    for source in PACKAGE.rglob("*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-{_MINOR}.pyc"
        # 4 bytes each: magic number, flags, the source's time and size.
        header = compiled.read_bytes()[8:16] if compiled.exists() else b""
        status = source.stat()
        wanted = int(status.st_mtime).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
        if header != wanted:
            found.append(source)
    return found


_MINOR = run("/usr/bin/python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])").strip()


def changes(trace: Path) -> list[tuple[str, str]]:
    """The renames and removals in a trace of strace's: what was done, and the path it ended at."""
    found = []
    for line in trace.read_text().splitlines():
        call = re.search(r'\b(rename|unlink|unlinkat|rmdir)\(.*"([^"]+)"[^"]*\) = 0', line)
        if call:
            found.append((call[1], call[2]))
    return found
