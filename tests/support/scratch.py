"""A container as a hook finds it: its own user and mount namespace, before the pivot.

Real namespaces made with nothing but the kernel, so that a test can arrange what no
engine would: a root filesystem full of traps, an init that dies at a given moment, no
user namespace at all.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel import enums as kernel
from tests.support.places import ROOT
from tests.support.processes import wait_until_gone

LAUNCHER = ROOT / "hooks.d" / "oci-bpf-hook"
# Where root and the others are outside; a range of its own, of nobody's.
FIRST_ID = 100_000
IDS = 65_536
# Seconds after which a test gives up.  That the hook itself ends within 5, whatever happens, its
# deadlines say (test_hooksd); a clock here would measure how busy the machine is.
LIMIT = 60
# By the last one a test knows the processes that it has started.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "OCI_BPF_HOOK_TEST": str(os.getpid()),
}

_INIT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def mount(source, target, fstype, flags, data=None):
    check(libc.mount(os.fsencode(source), os.fsencode(target), fstype and fstype.encode(),
                     ctypes.c_ulong(flags), data and data.encode()))
root, flags, setup = sys.argv[1], int(sys.argv[2]), sys.argv[3]
BIND, REC, PRIVATE, RDONLY, REMOUNT = 0x1000, 0x4000, 1 << 18, 1, 32
check(libc.unshare(flags))
print("unshared", flush=True)
sys.stdin.readline()
if flags & 0x10000000:
    os.setgroups([])
    own = int(sys.argv[5])
    os.setresgid(own, own, own)
    os.setresuid(own, own, own)
if flags & 0x20000:
    if sys.argv[4] == "1":
        mount("none", "/", None, REC | PRIVATE)
    mount(root, root, None, BIND | REC)
exec(setup)
print("ready", flush=True)
sys.stdin.read()
"""


class Scratch:
    """One such container; to be used in a `with`.

    `setup` is Python that its init runs last, inside: `mount(source, target, fstype, flags)`,
    `root` and the flags BIND, REC, RDONLY, REMOUNT are there.  `prefix` is a command that
    runs its init; without `private` its mounts keep the propagation that the kernel gives.
    `devices` are nodes beside the root filesystem that anybody can open, by their numbers; `lowest`
    is the first id that it has inside.  With `network` its network is its own.
    """

    def __init__(
        self,
        *,
        user: bool = True,
        mount: bool = True,
        network: bool = False,
        setup: str = "",
        tree: Sequence[str] = ("sys/fs/bpf", "opt"),
        prefix: Sequence[str] = (),
        private: bool = True,
        devices: Mapping[str, tuple[int, int]] | None = None,
        lowest: int = 0,
    ) -> None:
        # Where the container's root can reach it, wherever the checkout is.
        self._directory = tempfile.TemporaryDirectory(prefix="scratch-", dir="/tmp")
        # Around it and the host's, and the container's root may look at it.
        self.outside = Path(self._directory.name)
        self.root = self.outside / "rootfs"
        self.bundle = self.outside / "bundle"
        self.bundle.mkdir()
        os.chmod(self._directory.name, 0o755)
        for name in ("", *tree):
            for part in reversed(Path(name).parents):
                self._make(part)
            self._make(Path(name))
        for name, numbers in (devices or {}).items():
            os.mknod(self.outside / name, stat.S_IFCHR, os.makedev(*numbers))
            (self.outside / name).chmod(0o666)
        self._flags = (0x10000000 if user else 0) | (0x20000 if mount else 0)
        self._flags |= 0x40000000 if network else 0
        self._setup = setup
        self._prefix = prefix
        self._private = private
        self._lowest = lowest

    def _make(self, name: Path) -> None:
        path = self.root / name
        if not path.exists():
            path.mkdir()
            os.chown(path, FIRST_ID, FIRST_ID)

    def __enter__(self) -> "Scratch":
        command = [*self._prefix, sys.executable, "-IS", "-c", _INIT, str(self.root)]
        propagation = str(int(self._private))
        self.init = subprocess.Popen(
            [*command, str(self._flags), self._setup, propagation, str(self._lowest)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("unshared")
        if self._flags & 0x10000000:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{self.init.pid}/{name}").write_text(
                    f"{self._lowest} {FIRST_ID} {IDS}\n"
                )
        self.tell("go")
        self._tree = self._directories()
        self._mounted = bpf_mounts(self.init.pid), bpf_mounts(), bpf_mounts(1)
        return self

    def tell(self, word: str) -> None:
        """Have a `setup` that waits for a line go on, until it is done."""
        assert self.init.stdin
        self.init.stdin.write(f"{word}\n")
        self.init.stdin.flush()
        self._expect("ready")

    def _expect(self, word: str) -> None:
        assert self.init.stdout
        line = self.init.stdout.readline()
        assert line == f"{word}\n", f"the scratch container said {line!r}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.init.kill()
        self.init.communicate()
        self._directory.cleanup()

    def state(self, annotations: Mapping[str, str], **changes: object) -> dict[str, object]:
        """The OCI state of this container as crun gives it, with some keys changed."""
        state: dict[str, object] = {
            "ociVersion": "1.0",
            "id": "scratch",
            "pid": self.init.pid,
            "root": str(self.root),
            "bundle": str(self.bundle),
            "status": "created",
            "annotations": dict(annotations),
        }
        return state | changes

    def hook(
        self, annotations: Mapping[str, str], **changes: object
    ) -> subprocess.CompletedProcess[str]:
        """Run the hook as a runtime does."""
        return run_hook(json.dumps(self.state(annotations, **changes)))

    def mounts(self) -> list[str]:
        """The bpffs mounts in it, a line of mountinfo each."""
        return [line for line in bpf_mounts(self.init.pid) if str(self.root) in line]

    def assert_untouched(self) -> None:
        """Everything is as it was when the container was ready, here and on the host."""
        inside, here, host = self._mounted
        assert bpf_mounts(self.init.pid) in (inside, [])  # Nothing if its init has died.
        assert (bpf_mounts(), bpf_mounts(1)) == (here, host)
        assert self._directories() == self._tree
        assert hooks_alive() == []

    def _directories(self) -> set[str]:
        """The directories of the root filesystem as the host sees it, and so without mounts."""
        return {path for path, _, _ in os.walk(self.root)}

    def config(self, annotations: Mapping[str, str], **changes: object) -> None:
        """Write the bundle's config.json."""
        config = {"root": {"path": str(self.root)}, "annotations": dict(annotations), **changes}
        (self.bundle / "config.json").write_text(json.dumps(config))

    def enter(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `command` as the container's root, in its namespaces."""
        return subprocess.run(
            [*self.entering(), *command], capture_output=True, text=True, check=False
        )

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process in it as the container's root, cat(1) that `command` has become."""
        with subprocess.Popen(
            [*self.entering(), *command, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin
            assert process.stdout
            # Once it answers it is what it is to be.
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"\n"
            yield process

    def entering(self) -> list[str]:
        """A command that runs another as the container's root, in its namespaces."""
        own = ["-U", "-m", *(["-n"] if self._flags & 0x40000000 else [])]
        return ["nsenter", "-t", str(self.init.pid), *own, "-S", "0", "-G", "0", "--"]


def install(directory: Path) -> Path:
    """Copy what is installed to a new `directory`, not compiled; the launcher in it."""
    directory.mkdir(mode=0o755)
    shutil.copy(LAUNCHER, directory)
    package = LAUNCHER.parents[1] / "oci_bpf_hook"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, directory / package.name, ignore=ignore)
    shutil.copytree(package.parent / "schema", directory / package.name / "schema")
    for path in directory.rglob("*"):
        # Whatever umask the checkout was made with.
        path.chmod(0o755 if path.is_dir() or path.name == LAUNCHER.name else 0o644)
    return directory / LAUNCHER.name


# A command to run the hook behind on a kernel without BTF.
NO_BTF = ("unshare", "-m", "--", "sh", "-c", 'mount -t tmpfs none /sys/kernel && exec "$@"', "sh")


def header_of_6_9(directory: Path) -> Path:
    """A C header in `directory` with the names that the first kernel with tokens had."""
    table = kernel.table()
    path = directory / "bpf-6.9.h"
    enums = []
    for kind in KINDS:
        values = table.enum(kind).values
        names = [name for name in values if table.since(kind, name) == "6.9"]
        body = ", ".join(f"{kind.prefix}{name.upper()} = {values[name]}" for name in names)
        enums.append(f"enum {kind.enum} {{ {body} }};\n")
    path.write_text("".join(enums))
    return path


def io(**values: str) -> dict[str, str]:
    """Our annotations with these values, by their keys without the prefix."""
    return {f"io.bpffs.{key}": text for key, text in values.items()}


def as_bytes(state: str | bytes | Mapping[str, object]) -> bytes:
    """The OCI state `state` as a runtime hands it over."""
    if isinstance(state, bytes):
        return state
    return (state if isinstance(state, str) else json.dumps(state)).encode()


def run_hook(
    stdin: str | bytes | Mapping[str, object] | int,
    *arguments: str,
    prefix: Sequence[str] = (),
    launcher: str | Path = LAUNCHER,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the launcher with `stdin`, an fd or what is written to it.

    `prefix` is a command that runs it; `env` is added to its environment.
    """
    result = subprocess.run(
        [*prefix, str(launcher), *arguments],
        stdin=stdin if isinstance(stdin, int) else None,
        input=None if isinstance(stdin, int) else as_bytes(stdin),
        capture_output=True,
        timeout=LIMIT,
        check=False,
        cwd=cwd,
        env={**ENVIRONMENT, **(env or {})},
    )
    return subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
    )


def assert_granted(container: Scratch, result: subprocess.CompletedProcess[str]) -> None:
    """The hook has mounted one bpffs that delegates map_create and prog_load, and is silent."""
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    (mount,) = container.mounts()
    assert mount.endswith(",delegate_cmds=map_create:prog_load")
    assert hooks_alive() == []


def assert_failed(
    result: subprocess.CompletedProcess[str],
    code: int,
    *words: str,
    container: Scratch | None = None,
) -> None:
    """The hook has failed as its documentation says, and has left nothing behind.

    Its one line has the exit code, and `words`.
    """
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("oci-bpf-hook: "), result.stderr
    assert result.stderr.endswith(f" (exit code {code})\n"), result.stderr
    assert "Traceback" not in result.stderr
    assert [word for word in words if word not in result.stderr] == [], result.stderr
    assert result.returncode == code, result.stderr
    if container:
        container.assert_untouched()
    assert hooks_alive() == []


def bpf_mounts(pid: int | str = "self") -> list[str]:
    """The bpffs mounts that the process `pid` sees, a line of mountinfo each."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:  # It has died.
        return []
    return [line for line in lines if " - bpf " in line]


def hooks_alive() -> list[int]:
    """The processes that live of the hooks which this test has run."""
    mark = f"OCI_BPF_HOOK_TEST={os.getpid()}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # It has died.
                continue
            if mark in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def wait_for_hooks() -> None:
    """Wait until none of those lives; for a hook that was killed, whose child has to notice."""
    wait_until_gone(hooks_alive(), seconds=LIMIT)
