"""Finds the processes that can still use a delegation after it was revoked, as /proc shows them.

A process with a token's fd and privileges over its user namespace can use the token.  A process
with an open directory of the bpffs can make tokens, even if no path leads to the bpffs.  So
processes are searched, and not only namespaces.  An fd that is being sent through a socket can't be
seen.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from stat import S_ISDIR

from ..kernel.mountinfo import of_interest
from ..kernel.process import stat_known
from ..values import Value
from .process import Patience, TooManyMountsError, comm, pids

TOKEN = "token"  # noqa: S105
DIRECTORY = "directory"
MOUNT = "mount"
UNSEEN = "unseen"


class Held(Value):
    """What a process has: a TOKEN, an open DIRECTORY of the bpffs, or a MOUNT that isn't covered.

    UNSEEN means that the process has more mounts than are read, and may have such a mount.  `fd` is
    None for a mount, and for a directory that is the process's root or working directory.
    """

    __slots__ = ("fd", "name", "pid", "what")
    pid: int
    name: str
    fd: int | None
    what: str


def holders(devices: set[str], mount_namespace: int) -> Iterator[Held]:
    """The processes that have anything of the bpffs `devices`, each major:minor as in mountinfo.

    A token is a file of the bpffs that it was made from.  `mount_namespace` is the inode number of
    the container's own mount namespace, which isn't searched for mounts.  For every other mount
    namespace that shows the bpffs, one process is named.
    """
    namespaces = {mount_namespace}
    patience = Patience()
    for pid in sorted(pids()):
        found: set[tuple[str, int]] = set()
        name = "?"
        with suppress(OSError):  # The process has ended, or we may not look at it.
            name = comm(pid)
            for task in _tasks(pid):
                with suppress(OSError):
                    found.update(_held(task, devices))
                with suppress(OSError):
                    found.update(_seen(task, devices, namespaces, patience))
        for what, fd in sorted(found):
            yield Held(pid=pid, name=name, fd=fd if fd >= 0 else None, what=what)


def _tasks(pid: int) -> list[str]:
    """The directories of the threads that may have fds or mounts of their own."""
    directory = f"/proc/{pid}"
    ours = os.stat("/proc/self/ns/user").st_ino == os.stat(f"{directory}/ns/user").st_ino
    if ours and os.stat(directory).st_uid == 0:  # The host's root needn't hide anything from us.
        return [directory]
    return [f"{directory}/task/{tid}" for tid in os.listdir(f"{directory}/task")]


def _held(task: str, devices: set[str]) -> Iterator[tuple[str, int]]:
    for link in ("cwd", "root"):
        if _what(f"{task}/{link}", "", devices):
            yield DIRECTORY, -1
    for fd in os.listdir(f"{task}/fd"):
        what = _what(f"{task}/fd/{fd}", f"{task}/fdinfo/{fd}", devices)
        if what:
            yield what, int(fd)


def _what(path: str, info: str, devices: set[str]) -> str:
    try:
        mode, device = stat_known(path)
        if device not in devices:
            return ""
        if S_ISDIR(mode):
            return DIRECTORY
        with open(info, encoding="ascii") as file:
            # Linux: kernel/bpf/token.c, bpf_token_show_fdinfo; maps and programs have other fields.
            return TOKEN if any(line.startswith("allowed_cmds:") for line in file) else ""
    except OSError:
        return ""


def _seen(
    task: str, devices: set[str], namespaces: set[int], patience: Patience
) -> Iterator[tuple[str, int]]:
    namespace = os.stat(f"{task}/ns/mnt").st_ino
    if namespace in namespaces:
        return
    try:
        every = patience.mounts(f"{task}/mountinfo", None, of_interest(devices=devices))
    except TooManyMountsError:
        namespaces.add(namespace)
        yield UNSEEN, -1
        return
    namespaces.add(namespace)
    for mount in every.kept:
        if mount.device in devices and mount.id not in every.covered:
            yield MOUNT, -1
            return
