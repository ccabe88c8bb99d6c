"""Makes a scratch user namespace for trials: a child in it gets a bpffs, makes a token and uses it.

The hook's own two halves mount the bpffs, and the child does what a container's program would do.
So if something works here and not in a container, the reason is in that container.
"""

import os
import select
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from ..bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS
from ..container.namespaces import Container
from ..delegation.masks import Grant
from ..errors import HookError
from ..kernel import bpf, process, syscalls
from ..kernel import enums as kernel
from .host_half import HostHalf

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..guard.pinned import Guard

# Numbers of map types, program types and attach types, which are ABI (Linux:
# include/uapi/linux/bpf.h).
HASH = 1
SOCKET_FILTER = 1
TRACEPOINT = 5
ATTACH_0 = 0
# Seconds.
_DEADLINE = 10
# The host's uid and gid of the scratch namespace's root, which nobody else is likely to have.
ID = 0x7FFF0000
# Its root filesystem, a tmpfs, is mounted here, on a directory that every host has.
_ROOT = b"/tmp"
_BPFFS = "/bpf"
_READY = "ready"
_DONE = "done"


def masks(*programs: int) -> dict[str, int]:
    """The smallest masks that allow a hash map, a socket filter, and these types of `programs`."""
    return {
        CMDS.option: 1 << bpf.BPF_MAP_CREATE | 1 << bpf.BPF_PROG_LOAD,
        MAPS.option: 1 << HASH,
        PROGS.option: sum(1 << kind for kind in {SOCKET_FILTER, *programs}),
        ATTACHS.option: 1 << ATTACH_0,
    }


class Scratch:
    """A child in a user and a mount namespace of its own, to be used in a `with`.

    `failed` says what has gone wrong so far, or is "".
    """

    def __init__(self, use: "Callable[[int], str]") -> None:
        """Have the child run `use` with a token's fd.

        `use` returns what failed, or "", or raises OSError.
        """
        self._use = use

    def __enter__(self) -> "Scratch":
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        self._in, self._out = from_child, to_child
        parent = os.getpid()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(from_child)
            os.close(to_child)
            _be_scratch(to_parent, from_parent, parent, self._use)
        os.close(to_parent)
        os.close(from_parent)
        self.failed = self._map_ids() if (said := self._hear()) == _READY else said
        if not self.failed:
            said = self._ask()
            self.failed = "" if said == _READY else said
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._in)
        os.close(self._out)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def delegate(self, wanted: "Mapping[str, int]", guard: "Guard | None" = None) -> str:
        """Give it a bpffs with the masks that are `wanted`, marked for `guard` if that is given.

        Returns what failed, or "".
        """
        grant = Grant(masks=dict(wanted), path=_BPFFS, mode=0o1777)
        try:
            with (
                Container(self.pid) as container,
                HostHalf(container, _ROOT.decode()) as half,
            ):
                half.mount(grant, kernel.enums(KINDS), guard=guard)
                half.keep()
        except HookError as error:
            return str(error)
        return ""

    def use(self) -> str:
        """Have the child make a token and use it; returns what failed, or ""."""
        said = self._ask()
        return "" if said == _DONE else said

    def _map_ids(self) -> str:
        try:
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{self.pid}/{name}", "w", encoding="ascii") as file:
                    file.write(f"0 {ID} 1\n")
        except OSError as error:
            return f"its user namespace can't be given ids: {error.strerror}"
        return ""

    def _ask(self) -> str:
        try:
            os.write(self._out, b".")
        except OSError:
            return "it died"
        return self._hear()

    def _hear(self) -> str:
        if not select.select([self._in], [], [], _DEADLINE)[0]:
            return f"it sent nothing for {_DEADLINE} seconds"
        return os.read(self._in, 4096).decode("utf-8", "replace") or "it died"


def _be_scratch(out: int, orders: int, parent: int, use: "Callable[[int], str]") -> NoReturn:
    """The child: says READY twice, and DONE, or else what failed."""
    step = ""
    try:
        signal.alarm(_DEADLINE)
        step = "a user namespace"
        process.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        os.write(out, _READY.encode())
        os.read(orders, 1)
        step = "its ids"
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        step = "a root filesystem"
        process.mount_tmpfs(_ROOT)
        os.write(out, _READY.encode())
        os.read(orders, 1)
        step = "opening the bpffs"
        bpffs = os.open(_ROOT.decode() + _BPFFS, os.O_RDONLY | os.O_DIRECTORY)
        step = "BPF_TOKEN_CREATE"
        token = bpf.token_create(bpffs)
        step = "what it tries"
        os.write(out, (use(token) or _DONE).encode())
    except OSError as error:
        os.write(out, f"{step}: {error.strerror}".encode())
    finally:
        os._exit(0)
