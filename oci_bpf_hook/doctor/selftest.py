"""The whole way, for real: a scratch user namespace, a bpffs, a token, a map and a program.

The hook's own two halves do the mounting; what a container's program would do, a child does in
the scratch namespaces.  What works here and not in a container is that container's matter.
"""

import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

from .. import kernel, probes, syscalls
from ..container import Container
from ..errors import HookError
from ..masks import Grant
from ..mount import ContainerHalf
from ..names import ATTACHS, CMDS, KINDS, MAPS, PROGS
from .finding import Finding, ok, problem

_DEADLINE = 10
# Ids of nobody's, for the scratch namespace's root.
_ID = 0x7FFF0000
# Where it has its root filesystem: any directory that every host has.
_ROOT = b"/tmp"
_BPFFS = "/bpf"
_HASH = 1
_SOCKET_FILTER = 1
_ATTACH_0 = 0
# What is delegated for it: the least for a map and a program.
_MASKS = {
    CMDS.option: 1 << probes.BPF_MAP_CREATE | 1 << probes.BPF_PROG_LOAD,
    MAPS.option: 1 << _HASH,
    PROGS.option: 1 << _SOCKET_FILTER,
    ATTACHS.option: 1 << _ATTACH_0,
}
_READY = "ready"
_DONE = "done"


def selftest() -> Iterator[Finding]:
    """Try it; one finding, of what failed first or of success.  Takes root."""
    try:
        probes.arch()
    except OSError as error:
        yield problem("selftest", f"{error.strerror}: nothing can be tried on this machine")
        return
    with _Scratch() as scratch:
        step = scratch.failed or _delegate(scratch) or scratch.use()
    if step:
        yield problem("selftest", f"a scratch container can't use BPF: {step}")
    else:
        yield ok(
            "selftest",
            "a scratch user namespace got a bpffs, made a token, and with it a map and a program",
        )


def _delegate(scratch: "_Scratch") -> str:
    grant = Grant(masks=_MASKS, path=_BPFFS, mode=0o1777)
    try:
        with (
            Container(scratch.pid) as container,
            ContainerHalf(container, _ROOT.decode()) as half,
        ):
            half.mount(grant, kernel.enums(KINDS))
            half.keep()
    except HookError as error:
        return str(error)
    return ""


class _Scratch:
    """A child in a user and a mount namespace of its own, to be used in a `with`."""

    def __enter__(self) -> "_Scratch":
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        self._in, self._out = from_child, to_child
        parent = os.getpid()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(from_child)
            os.close(to_child)
            _be_scratch(to_parent, from_parent, parent)
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

    def use(self) -> str:
        """Have it make a token, a map and a program; what failed, or ""."""
        said = self._ask()
        return "" if said == _DONE else said

    def _map_ids(self) -> str:
        try:
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{self.pid}/{name}", "w", encoding="ascii") as file:
                    file.write(f"0 {_ID} 1\n")
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
            return f"nothing came from it in {_DEADLINE} seconds"
        return os.read(self._in, 4096).decode("utf-8", "replace") or "it died"


def _be_scratch(out: int, orders: int, parent: int) -> NoReturn:
    """The child: says READY twice, and DONE, or what failed."""
    step = ""
    try:
        signal.alarm(_DEADLINE)
        step = "a user namespace"
        probes.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        os.write(out, _READY.encode())
        os.read(orders, 1)
        step = "its ids"
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        step = "a root filesystem"
        probes.mount_tmpfs(_ROOT)
        os.write(out, _READY.encode())
        os.read(orders, 1)
        step = "opening the bpffs"
        bpffs = os.open(_ROOT.decode() + _BPFFS, os.O_RDONLY | os.O_DIRECTORY)
        step = "BPF_TOKEN_CREATE"
        token = probes.token_create(bpffs)
        step = "BPF_MAP_CREATE with the token"
        probes.map_create(_HASH, token)
        step = "BPF_PROG_LOAD with the token"
        probes.prog_load(_SOCKET_FILTER, _ATTACH_0, token)
        os.write(out, _DONE.encode())
    except OSError as error:
        os.write(out, f"{step}: {error.strerror}".encode())
    finally:
        os._exit(0)
