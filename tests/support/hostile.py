"""Images with files that would be run if anything of an image were."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.podman import World

_EVIL_C = """
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void evil(void)
{
    int fd = open(MARKER, O_CREAT | O_WRONLY, 0666);
    if (fd >= 0)
        close(fd);
}
"""
_EVIL_SH = '#!/bin/sh\n: > "%s"\n'
_EVIL_PY = "open(%r, 'w').close()\n"


@contextmanager
def evil_files() -> Iterator[tuple[Path, Path]]:
    """A directory with files that make a marker, whoever runs them, and the marker."""
    with tempfile.TemporaryDirectory(prefix="obh-evil-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o777)
        marker = directory / "marker"
        (directory / "evil.c").write_text(_EVIL_C)
        subprocess.run(
            ["cc", "-shared", "-fPIC", f'-DMARKER="{marker}"', "-o", "evil.so", "evil.c"],
            cwd=directory,
            check=True,
        )
        for module in ("os", "sitecustomize", "usercustomize", "posix", "encodings", "gc", "site"):
            (directory / f"{module}.py").write_text(_EVIL_PY % str(marker))
        for program in ("python3", "sh", "env"):
            (directory / program).write_text(_EVIL_SH % marker)
            (directory / program).chmod(0o755)
        # Not libc: without it nothing runs at all, and so no marker is made either.
        os.link(directory / "evil.so", directory / "libz.so.1")
        yield directory, marker


def hostile_image(world: World, evil: Path) -> str:
    """An image with these files at the root, and the environment that would have them run."""
    name = "localhost/hostile:latest"
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        archive = Path(directory) / "image.tar"
        os.chmod(directory, 0o755)
        rootfs = shutil.copytree(world.rootfs, Path(directory) / "rootfs", symlinks=True)
        shutil.copytree(evil, rootfs, dirs_exist_ok=True)
        rootfs.chmod(0o755)
        subprocess.run(["tar", "-C", str(rootfs), "-cf", str(archive), "."], check=True)
        changes = [
            "LD_PRELOAD=/proc/self/cwd/evil.so",
            "LD_LIBRARY_PATH=/proc/self/cwd",
            "PYTHONPATH=/proc/self/cwd",
            "PYTHONSTARTUP=/proc/self/cwd/os.py",
            "PYTHONHOME=/proc/self/cwd",
            "PATH=/proc/self/cwd:/bin",
        ]
        options = [word for change in changes for word in ("--change", f"ENV {change}")]
        world.podman("import", "--quiet", *options, str(archive), name)
    return name
