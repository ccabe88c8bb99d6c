"""Processes below podman's conmon, and below what only says that it is conmon."""

import os
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import children
from tests.support.scratch import LIMIT, Scratch

NOBODYS = ("setpriv", "--reuid=61996", "--regid=61996", "--clear-groups")


@contextmanager
def watched(
    scratch: Scratch, name: str, identity: str, runtime: str = "/usr/bin/crun"
) -> Iterator[int]:
    """A process in namespaces of its own within a container, and one that calls itself conmon."""
    words = ("-n", name, "-c", identity, "-r", runtime, "libpod", "-n", "of-no-account")
    program = scratch.outside / "watch.py"
    program.write_text(
        "import os, subprocess\n"
        "inner = ['unshare', '-U', '-r', '-m', 'cat']\n"
        "pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}\n"
        "with subprocess.Popen(inner, bufsize=0, **pipes) as one:\n"
        "    while data := os.read(0, 1):\n"
        "        one.stdin.write(data)\n"
        "        os.write(1, one.stdout.read(1))\n"
    )
    shell = f"exec -a conmon {shlex.join([sys.executable, '-IS', str(program), *words])}"
    with scratch.running("bash", "-c", shell) as process:
        (child,) = children(process.pid)
        yield child


# What an engine leaves to a container that has no user namespace of its own, as far as it matters.
CONFINED = ("setpriv", "--bounding-set=-sys_admin,-sys_ptrace", "--")
# The two kinds of container that there are of these: with the host's pid namespace, and without.
WITHOUT_A_USER_NAMESPACE = (
    ("unshare", "--mount", "--", *CONFINED),
    ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--", *CONFINED),
)


@contextmanager
def impostor(
    directory: Path, words: Sequence[str], prefix: Sequence[str], program: str = ""
) -> Iterator[int]:
    """A process in namespaces of its own, and above it a `program` that says that it is conmon.

    By default that is a file of that name.  `words` are its arguments, and `prefix` is a command
    that puts it where it is to be.
    """
    named = directory / "conmon"
    shutil.copy(os.path.realpath(sys.executable), named)
    watch = directory / "watch.py"
    watch.write_text(
        "import os, subprocess\n"
        "inner = ['unshare', '-U', '-r', '-m', 'cat']\n"
        "pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}\n"
        "with subprocess.Popen(inner, bufsize=0, **pipes) as one:\n"
        "    while data := os.read(0, 1):\n"
        "        one.stdin.write(data)\n"
        "        os.write(1, one.stdout.read(1))\n"
    )
    shell = 'exec -a conmon "$0" "$@"'
    command = [*prefix, "bash", "-c", shell, program or str(named), "-IS", str(watch), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"
        child = process.pid
        while below := children(child):
            (child,) = below
        assert Path(f"/proc/{child}/comm").read_text() == "cat\n"
        yield child


# The real conmon runs this as its runtime, and waits for it.
_STAYS = """#!/bin/sh
if test "$1" = --version; then
    exec touch {0}/asked
fi
exec unshare -U -r -m sh -c 'echo > {0}/ready; read _ < {0}/end'
"""


@contextmanager
def conmon(directory: Path, prefix: Sequence[str], identity: str) -> Iterator[int]:
    """A process in namespaces of its own below the real conmon, where `prefix` puts that."""
    runtime = directory / "crun"
    runtime.write_text(_STAYS.format(directory))
    runtime.chmod(0o755)
    command = [
        *(*prefix, "/usr/bin/conmon", "--api-version", "1", "-c", identity, "-u", identity),
        *("-n", "web", "-r", str(runtime), "-b", str(directory), "-p", str(directory / "pid")),
        *("-l", f"k8s-file:{directory}/log", "--socket-dir-path", str(directory), "--sync"),
        *("--exit-dir", str(directory), "--exit-command", "/bin/true"),
    ]
    ready, end = (_fifo(directory / name) for name in ("ready", "end"))
    status = directory.stat()
    for name in ("ready", "end"):
        os.chown(directory / name, status.st_uid, status.st_gid)
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as one:
            assert select.select([ready], [], [], LIMIT)[0], "conmon has started nothing"
            child = one.pid
            while below := children(child):
                (child,) = below
            try:
                yield child
            finally:
                os.write(end, b"\n")
    finally:
        os.close(ready)
        os.close(end)


def _fifo(path: Path) -> int:
    os.mkfifo(path)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)
