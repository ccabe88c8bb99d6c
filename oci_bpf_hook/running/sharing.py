"""What the processes of a running container share with the host: its network, and its cgroups.

At createRuntime the hook looks at the only process that there is (`Container`).  Once the workload
runs, the container chooses which of its processes is looked at, and when: one process can move to a
network namespace of its own to ask, while all others stay in the host's.  So here every process
counts that is in the user namespace or in one within it, with every thread.  A process that can't
be read, or keeps changing, counts as sharing everything.  A broker's peer is always looked at in
this way: nothing that the kernel tells distinguishes a hook at createContainer from a program in
the container; and if it is such a hook, then the workload doesn't run yet, and the processes that
exist have the container's namespaces.

A process passes on what it shares only by fork(2): to enter a namespace of the host's again takes a
privilege in the host's user namespace.  So to stay unseen, such a process has to fork time and
again, and end before it is looked at.  Passes are made until one finds no new process, and no
process that ended before it was looked at.  A listing of all pids can be evaded only when the
kernel begins to number anew from the lowest pid; if that happens twice between the first pass and
the last one, the result isn't believed.

This can't see what a process holds open from before: a directory of the host's cgroups, or a file
of its network namespace.
"""

import os
from _socket import socket
from collections.abc import Callable
from contextlib import suppress
from signal import SIG_DFL, SIGALRM, SIGKILL, alarm, signal
from time import monotonic
from typing import NoReturn, TypeVar

from ..container.namespaces import INITIAL_USER_NAMESPACE, Process, is_within, owning
from ..errors import HookError
from ..files import read_all
from ..kernel import syscalls
from ..mount.child import Half
from .owner import user_behind
from .process import Patience, pids

# Linux: include/linux/proc_ns.h, PROC_PID_INIT_INO.
_INITIAL_PID = 0xEFFFFFFC
# How many ids the initial user namespace maps; one below it may, too, if root sets that up.
_EVERY_ID = 0xFFFFFFFF
_THERE = b"t"
# The most to look at: seconds, processes and threads, and namespaces.
_SECONDS = 1.0
_MOST = 1 << 16
_MOST_NAMESPACES = 512
_GONE = (FileNotFoundError, ProcessLookupError)

_Found = TypeVar("_Found")


def shares(process: Process) -> tuple[bool, bool]:
    """Whether the container of `process` shares the host's network, and sees the host's cgroups.

    Both are True if the container is a user's: the user can enter and leave namespaces with a token
    in hand, and so sees what the container doesn't.  Both are also True for a process in a user
    namespace within a container's, and whenever it can't be told.  To be called in the initial user
    namespace, for a container whose workload may run.
    """
    try:
        if process.is_nested() or user_behind(process) != 0 or not _sees_everybody():
            return True, True
        with _Look(process) as look:
            return look.at_all()
    except (HookError, OSError, ValueError):
        return True, True


def _sees_everybody() -> bool:
    """Whether we see every process of the host, because we are in the initial pid namespace."""
    return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID


class _UnclearError(OSError):
    """There is more than is looked at, or it changes all the time."""


class _Look:
    """A look at every process of a container; to be used in a `with`.

    It holds every namespace that it has seen, because the number of one that ends is used again.
    """

    def __init__(self, process: Process) -> None:
        self._top = process.user_inode()
        self._everything_is_mapped = process.id_map("uid") == [(0, _EVERY_ID)]
        self._held: list[int] = []
        # By their inode numbers: whether a user namespace is the container's or below it, whether a
        # network namespace belongs to none of these, and which cgroups a mount namespace shows.
        self._users = {self._top: True, INITIAL_USER_NAMESPACE: False}
        self._networks: dict[int, bool] = {}
        self._mounts: dict[int, frozenset[str]] = {}
        self._patience = Patience()
        # The newest pid before the first pass, and the latest one; how often numbering has begun
        # anew.
        self._since = self._last = self._laps = 0
        self._pids: set[int] = set()
        # The tid and start time of each thread: those that were looked at, and those that had
        # ended.
        self._tasks: set[tuple[int, bytes]] = set()
        self._ended: set[tuple[int, bytes]] = set()
        self._network = self._cgroup = False

    def __enter__(self) -> "_Look":
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            os.close(self._held.pop())

    def at_all(self) -> tuple[bool, bool]:
        """Whether some process shares the host's network, and some sees the host's cgroups."""
        self._since = self._last = _new_pid()
        until = monotonic() + _SECONDS
        while not self._pass() and not (self._network and self._cgroup):
            if monotonic() > until:
                raise _UnclearError
        if not self._tasks or self._laps > 1:
            raise _UnclearError
        return self._network, self._cgroup

    def _pass(self) -> bool:
        """Look at all processes that exist; returns whether there was nothing new."""
        listed = pids()
        if len(listed) > _MOST:
            raise _UnclearError
        settled = True
        gone: list[int] = []
        looked_at: list[int] = []
        # The new ones first and at once, because they may be about to end.
        for pid in sorted(listed, key=self._pids.__contains__):
            try:
                if self._is_ours(f"/proc/{pid}/ns/user"):
                    settled &= self._process_is_known(pid)
                looked_at.append(pid)
            except _GONE:
                gone.append(pid)
            except PermissionError:
                if self._everything_is_mapped or not _has_every_id(pid):
                    raise
        last = _new_pid()
        self._laps += last < self._last
        self._last = last
        # A pid that was given since the first pass may have been another process's before.
        settled &= all(
            pid in self._pids and not _is_between(self._since, pid, last) for pid in gone
        )
        self._pids.update(looked_at)
        return settled

    def _process_is_known(self, pid: int) -> bool:
        known = True
        for tid in os.listdir(f"/proc/{pid}/task"):
            try:
                known &= self._task_is_known(f"/proc/{pid}/task/{tid}", int(tid))
            except _GONE:
                known = False
        return known

    def _task_is_known(self, task: str, tid: int) -> bool:
        # The third field and the 22nd; the name, in parentheses, may itself have blanks in it.
        fields = _read(f"{task}/stat").rpartition(b")")[2].split()
        key = tid, fields[19]
        if key in self._tasks or key in self._ended:
            return True
        if fields[0] in (b"Z", b"X"):
            # It has ended and shares nothing any more, but it lived when it was listed, and a child
            # that it has made since wasn't listed.
            self._ended.add(key)
            return False
        self._network |= self._known(f"{task}/ns/net", self._networks, self._is_foreign)
        self._cgroup |= self._sees_more(task)
        self._tasks.add(key)
        if len(self._tasks) > _MOST:
            raise _UnclearError
        return False

    def _is_ours(self, path: str) -> bool:
        """Whether the user namespace at `path` is the container's or within it."""
        return self._known(path, self._users, lambda one: is_within(one, self._top))

    def _is_foreign(self, namespace: int) -> bool:
        """Whether the network `namespace` belongs to no user namespace of the container."""
        owner = owning(namespace)
        try:
            return not is_within(owner, self._top)
        finally:
            os.close(owner)

    def _sees_more(self, task: str) -> bool:
        """Whether a cgroup2 in its mount namespace shows more than the cgroup that it is in."""
        shown = self._known(f"{task}/ns/mnt", self._mounts, self._cgroups_in)
        lines = _read(f"{task}/cgroup").decode("utf-8", "surrogateescape").split("\n")
        own = next((line[3:] for line in lines if line.startswith("0::")), "/")
        return any(own == "/" or not f"{top}/".startswith(f"{own}/") for top in shown)

    def _cgroups_in(self, namespace: int) -> frozenset[str]:
        with _Visitor(namespace) as visitor:
            return visitor.cgroups(self._patience)

    def _known(self, path: str, found: dict[int, _Found], look: Callable[[int], _Found]) -> _Found:
        """What `look` finds in the namespace at `path`, which is held open from then on."""
        inode = os.stat(path).st_ino
        if inode not in found:
            if len(self._held) >= _MOST_NAMESPACES:
                raise _UnclearError
            namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._held.append(namespace)
            # The process may be in another namespace by now.
            inode = os.fstat(namespace).st_ino
            found[inode] = look(namespace)
        return found[inode]


def _has_every_id(pid: int) -> bool:
    """Whether the user namespace of `pid` maps all ids there are, to themselves.

    Reading that needs no privilege.  So it also works for a host's process that we may not look at
    because it has a capability that we lack: if it maps all ids, it is in no container, which would
    map fewer.
    """
    return _read(f"/proc/{pid}/uid_map").split() == [b"0", b"0", b"%d" % _EVERY_ID]


class _Visitor(Half):
    """A child in a mount namespace, which sees all of its mounts.

    A process of the container's may have a root directory from which some mounts can't be seen.
    The child runs no program, and joins no other namespace.
    """

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        super().__init__()

    def _child(self, sock: socket, parent: int) -> NoReturn:
        try:
            signal(SIGALRM, SIG_DFL)
            alarm(self.seconds)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
            syscalls.setns(self._namespace, syscalls.CLONE_NEWNS)
            if os.getppid() == parent:
                sock.send(_THERE)
                sock.recv(1)
        finally:
            os._exit(0)

    def cgroups(self, patience: Patience) -> frozenset[str]:
        """The cgroups that the mounts there show; each stands for all below it.

        Raises HookError, OSError; more mounts than are read are an OSError, too.
        """
        self._receive(_THERE)
        mounts = patience.mounts(f"/proc/{self._pid}/mountinfo", None, _is_cgroup2)
        return frozenset(mount.root for mount in mounts.kept)


def _is_cgroup2(line: bytes) -> bool:
    return b" - cgroup2 " in line


def _read(path: str, most: int = 1 << 20) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_all(fd, most)
    finally:
        os.close(fd)


def _new_pid() -> int:
    """The pid of a process that was started just now; earlier processes have lower ones.

    Until they begin anew.  /proc/loadavg has it, too, but not for a service with ProcSubset=pid.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    with suppress(ChildProcessError):  # If SIGCHLD is ignored there is no child to wait for.
        os.waitpid(pid, 0)
    return pid


def _is_between(since: int, pid: int, last: int) -> bool:
    """Whether `pid` may have been given after `since`, up to `last`; pids may have begun anew."""
    return since < pid <= last if since <= last else pid > since or pid <= last
