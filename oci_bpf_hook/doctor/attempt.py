"""A child that tries a container's bpffs from inside: as its root, then as one of its processes.

It follows the rules of `container_half`, and enters in the same way (by its `join`): everything is
imported before, it runs no program, stays out of the pid namespace, can't be traced, and ends with
its own alarm or its parent.  The container's seccomp filter doesn't apply to it, so what it gets is
the kernel's own answer.
"""

import os
import signal
from _socket import socket
from struct import Struct
from typing import NoReturn

from ..container.namespaces import Container
from ..kernel import bpf, process, syscalls
from ..mount import container_half
from ..mount.child import Half
from ..running.process import Status, inside_id
from ..values import Value

_PR_SET_KEEPCAPS = 8
# The child's answer is this byte and four errnos: of opening the path and of making a token as the
# container's root, and then of the same two as the process.
_TRIED = b"t"
_ANSWER = Struct("=ciiii")
_NOT_TRIED = -1
_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Tried(Value):
    """Errnos, 0 for success: `opened` and `token` by the process, `root_*` by the root.

    -1 stands for what wasn't tried, because something before it failed.
    """

    __slots__ = ("opened", "root_opened", "root_token", "token")
    root_opened: int
    root_token: int
    opened: int
    token: int


class _Visit(Half):
    """The child, as this process sees it."""

    def __init__(self, container: Container, path: str, who: Status) -> None:
        self._container = container
        self._path = path
        self._who = who
        self._ids = inside_id(container, "uid", who.uid), inside_id(container, "gid", who.gid)
        super().__init__()

    def _child(self, sock: socket, parent: int) -> NoReturn:
        progress = container_half.Progress()
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(self.seconds)
            root = container_half.join(self._container, container_half.RUNNING, parent, progress)
            answers = [*_try(root, self._path)]
            uid, gid = self._ids
            if uid is None or gid is None:
                answers += [_NOT_TRIED, _NOT_TRIED]
            else:
                progress.step = "credentials"
                _become(self._who, uid, gid)
                answers += _try(root, self._path)
            sock.send(_ANSWER.pack(_TRIED, *answers))
        except OSError as error:
            container_half.report(sock, progress.step, error)
        except container_half.GoneError:
            pass
        finally:
            os._exit(0)

    def answer(self) -> Tried:
        _, root_opened, root_token, opened, token = _ANSWER.unpack(self._receive(_TRIED))
        return Tried(root_opened=root_opened, root_token=root_token, opened=opened, token=token)


def visit(container: Container, path: str, who: Status) -> Tried:
    """Try the bpffs at `path` in `container`, for a process with the credentials of `who`.

    Raises HookError if the container can't be entered.
    """
    with _Visit(container, path, who) as half:
        return half.answer()


def _become(who: Status, uid: int, gid: int) -> None:
    """Take the credentials of `who`, but no supplementary groups, which don't matter here."""
    syscalls.prctl(_PR_SET_KEEPCAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    process.capset(who.effective, who.permitted, who.inheritable)
    # A change of credentials has reset both.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _try(root: int, path: str) -> tuple[int, int]:
    try:
        name = os.fsencode(path.lstrip("/") or ".")
        bpffs = syscalls.openat2(root, name, _OPEN, _RESOLVE)
    except OSError as error:
        return error.errno or _NOT_TRIED, _NOT_TRIED
    try:
        os.close(bpf.token_create(bpffs))
    except OSError as error:
        return 0, error.errno or _NOT_TRIED
    finally:
        os.close(bpffs)
    return 0, 0
