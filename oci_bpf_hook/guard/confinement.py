"""Finds out whether a bpffs is confined, that is whether the guard holds the tokens made from it.

Only the mark on the bpffs's root directory tells; it was set when the bpffs was granted.  All
commands that describe a running container ask here.  The directory is found by its path in the
container; if another mount covers it, it can't be told.
"""

import os
import signal

from ..container.namespaces import Process
from ..kernel import syscalls
from ..kernel.mountinfo import Mount
from .pinned import AbsentError, in_force

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# Seconds.  A file system on the way may be the container's own (FUSE), and never answer.
_DEADLINE = 2
_NOT_MARKED, _MARKED, _UNKNOWN = range(3)


def confined(process: Process, mount: Mount) -> bool | None:
    """Whether the bpffs `mount` that `process` sees is confined; None if that can't be told.

    A bpffs without a mark isn't confined, and if no guard is in force no bpffs is.  If `mount` is a
    bind mount of a directory below the bpffs's root, it can't be told.
    """
    try:
        guard = in_force()
    except AbsentError:
        return False
    with guard:
        if mount.root != "/":
            return None
        pid = os.fork()
        if pid == 0:
            code = _UNKNOWN
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(_DEADLINE)
                root = _find(process, mount)
                code = _MARKED if guard.marked(root) else _NOT_MARKED
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
    answers = {_NOT_MARKED: False, _MARKED: True}
    return answers.get(os.WEXITSTATUS(status)) if os.WIFEXITED(status) else None


def _find(process: Process, mount: Mount) -> int:
    """The root directory of `mount`, as an O_PATH fd.  Raises OSError."""
    top = os.open("root", _DIRECTORY, dir_fd=process.proc)
    path = os.fsencode(mount.point.lstrip("/") or ".")
    found = syscalls.openat2(top, path, _DIRECTORY, _RESOLVE)
    if syscalls.statx_mount(found) != (mount.id, True):
        raise OSError(f"another mount covers {mount.point}")
    return found
