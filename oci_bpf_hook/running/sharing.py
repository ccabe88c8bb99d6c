"""Finds out whether a running container's processes share the host's network or see its cgroups.

At createRuntime the hook looks at the container's only process (`Container`).  Once the workload
runs, the container can choose which of its processes is looked at, and when: one process can ask
from a network namespace of its own, while all others stay in the host's.  So here every process and
thread counts that is in the container's user namespace or in one inside it.  A process that can't
be read, or keeps changing, counts as sharing everything.  A process that connects to the broker is
always looked at in this way, because the kernel can't distinguish a hook at createContainer from a
program in the container.  If it is such a hook, the workload doesn't run yet, and the processes
that exist have the container's namespaces.

A process passes on what it shares only by fork(2), since entering a namespace of the host's again
takes a privilege in the host's user namespace.  So to stay unseen, such a process has to fork again
and again, and end each time before it is looked at.  Passes are made until one finds no new
process, and no process that ended before it was looked at.  A listing of all pids can be evaded
only when pids wrap around to the lowest; if that happens twice between the first and the last pass,
the result isn't believed.

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

from ..container.namespaces import INITIAL_USER_NAMESPACE, Process, owning
from ..container.nesting import id_map, is_nested, is_within
from ..errors import HookError
from ..files import read_all
from ..kernel import syscalls
from ..mount.child import Half
from .owner import user_behind
from .process import Patience, pids

# Linux: include/linux/proc_ns.h, PROC_PID_INIT_INO.
_INITIAL_PID = 0xEFFFFFFC
# The number of ids that the initial user namespace maps; root can set up another one with as many.
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

    Both are True if the container is a user's, because the user can enter and leave its namespaces
    with a token in hand.  Both are also True for a process in a user namespace inside a
    container's, and whenever the answer can't be found.  The caller has to be in the initial user
    namespace.
    """
    try:
        if is_nested(process) or user_behind(process) != 0 or not _sees_everybody():
            return True, True
        with _Look(process) as look:
            return look.at_all()
    except (HookError, OSError, ValueError):
        return True, True


def _sees_everybody() -> bool:
    """Whether we are in the initial pid namespace, and so see every process of the host."""
    return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_PID


class _UnclearError(OSError):
    """There are more processes than are looked at, or they change all the time."""


class _Look:
    """A look at every process of a container; to be used in a `with`.

    It holds every namespace open that it has seen, because the inode number of a namespace that
    ends is used again.
    """

    def __init__(self, process: Process) -> None:
        self._top = process.user_inode()
        self._everything_is_mapped = id_map(process, "uid") == [(0, _EVERY_ID)]
        self._held: list[int] = []
        # What is known of namespaces, by their inode numbers: whether a user namespace is the
        # container's or inside it, whether a network namespace belongs to none of these user
        # namespaces, and which cgroups a mount namespace shows.
        self._users = {self._top: True, INITIAL_USER_NAMESPACE: False}
        self._networks: dict[int, bool] = {}
        self._mounts: dict[int, frozenset[str]] = {}
        self._patience = Patience()
        # The newest pid before the first pass, the newest now, and how often pids wrapped around.
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
        """Whether any process shares the host's network, and whether any sees its cgroups."""
        self._since = self._last = _new_pid()
        until = monotonic() + _SECONDS
        while not self._pass() and not (self._network and self._cgroup):
            if monotonic() > until:
                raise _UnclearError
        if not self._tasks or self._laps > 1:
            raise _UnclearError
        return self._network, self._cgroup

    def _pass(self) -> bool:
        """Look at all processes that exist.  Returns whether none of them was new."""
        listed = pids()
        if len(listed) > _MOST:
            raise _UnclearError
        settled = True
        gone: list[int] = []
        looked_at: list[int] = []
        # New processes are looked at first, because they may be about to end.
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
            # The thread has ended and shares nothing any more.  But it lived when it was listed,
            # and a child that it has made since wasn't listed.
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
        """Whether a cgroup2 mount that the task sees shows more than the task's own cgroup."""
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
    """Whether the user namespace of `pid` maps every id to itself.

    Reading the map needs no privilege, so this also works for a process of the host that we may not
    look at because it has a capability that we lack.  If all ids are mapped the process isn't in a
    container, whose user namespace maps fewer.
    """
    return _read(f"/proc/{pid}/uid_map").split() == [b"0", b"0", b"%d" % _EVERY_ID]


class _Visitor(Half):
    """A child process that joins a mount namespace, to see all mounts in it.

    A process of the container's may have a root directory from which some mounts can't be seen.
    The child runs no program and joins no other namespace.
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
        """The cgroups that the mounts there show; each includes all cgroups below it.

        Raises HookError, and OSError, also if there are more mounts than are read.
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
    """The pid of a process that was started just now.

    Earlier processes have lower pids, unless pids have wrapped around.  /proc/loadavg also has the
    newest pid, but a service with ProcSubset=pid can't read it.
    """
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    with suppress(ChildProcessError):  # If SIGCHLD is ignored there is no child to wait for.
        os.waitpid(pid, 0)
    return pid


def _is_between(since: int, pid: int, last: int) -> bool:
    """Whether `pid` may have been given after `since`, up to `last`; pids may have wrapped."""
    return since < pid <= last if since <= last else pid > since or pid <= last
