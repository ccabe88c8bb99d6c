"""A container as a hook finds it: its own user and mount namespace, before the pivot.

Real namespaces made with nothing but the kernel, so that a test can arrange what no
engine would: a root filesystem full of traps, an init that dies at a given moment, no
user namespace at all.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

LAUNCHER = Path(__file__).parents[2] / "hooks.d" / "oci-bpf-hook"
# Where root and the others are outside; a range of its own, of nobody's.
FIRST_ID = 100_000
IDS = 65_536

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
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
if flags & 0x20000:
    mount("none", "/", None, REC | PRIVATE)
    mount(root, root, None, BIND | REC)
exec(setup)
print("ready", flush=True)
sys.stdin.read()
"""


class Scratch:
    """One such container; to be used in a `with`.

    `setup` is Python that its init runs last, inside: `mount(source, target, fstype, flags)`,
    `root` and the flags BIND, REC, RDONLY, REMOUNT are there.
    """

    def __init__(
        self,
        *,
        user: bool = True,
        mount: bool = True,
        setup: str = "",
        tree: Sequence[str] = ("sys/fs/bpf", "opt"),
    ) -> None:
        # Where the container's root can reach it, wherever the checkout is.
        self._directory = tempfile.TemporaryDirectory(prefix="scratch-", dir="/tmp")
        self.root = Path(self._directory.name) / "rootfs"
        self.bundle = Path(self._directory.name) / "bundle"
        self.bundle.mkdir()
        os.chmod(self._directory.name, 0o755)
        for name in ("", *tree):
            for part in reversed(Path(name).parents):
                self._make(part)
            self._make(Path(name))
        self._flags = (0x10000000 if user else 0) | (0x20000 if mount else 0)
        self._setup = setup

    def _make(self, name: Path) -> None:
        path = self.root / name
        if not path.exists():
            path.mkdir()
            os.chown(path, FIRST_ID, FIRST_ID)

    def __enter__(self) -> "Scratch":
        command = [sys.executable, "-IS", "-c", _INIT, str(self.root), str(self._flags)]
        self.init = subprocess.Popen(
            [*command, self._setup], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._expect("unshared")
        if self._flags & 0x10000000:
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{self.init.pid}/{name}").write_text(f"0 {FIRST_ID} {IDS}\n")
        assert self.init.stdin
        self.init.stdin.write("go\n")
        self.init.stdin.flush()
        self._expect("ready")
        return self

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
        lines = Path(f"/proc/{self.init.pid}/mountinfo").read_text().splitlines()
        return [line for line in lines if " - bpf " in line and str(self.root) in line]

    def enter(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `command` as the container's root, in its namespaces."""
        enter = ["nsenter", "-t", str(self.init.pid), "-U", "-m", "-S", "0", "-G", "0", "--"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)


def run_hook(
    stdin: str | bytes, *arguments: str, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the launcher with `stdin`; `prefix` is a command that runs it."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    result = subprocess.run(
        [*prefix, str(LAUNCHER), *arguments],
        input=data,
        capture_output=True,
        timeout=30,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    return subprocess.CompletedProcess(
        result.args, result.returncode, result.stdout.decode(), result.stderr.decode()
    )
