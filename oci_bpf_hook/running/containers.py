"""Finds the containers that run on this host, whatever engine started them.

It asks /proc, and podman's and Docker's APIs.

A container is a mount namespace in a user namespace of its own; its init is the process that has
been in it longest.  Engines write a container's name on the command line of the process that
watches it (conmon, containerd's shim); LXC and systemd write it in the name of its cgroup.

A process in a container can run something called conmon and make cgroups too.  So a watcher is
believed only if an engine of root's started it on this host (`_is_the_hosts`) and it runs the
installed program.  Of the cgroups only the outermost one counts.  A user's own containers have
whatever names the user gives them.  None of the files that these sources name is opened or run.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..container.namespaces import Process
from ..container.nesting import outermost, outermost_owner
from ..errors import BAD_STATE, USAGE, HookError, quote
from ..kernel.process import CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE
from ..values import Value
from . import docker
from .owner import user_behind
from .process import comm, is_roots, pids, read, status
from .programs import is_program, roots_alone

# How engines and systemd name a container's cgroup, with the container's name or id.
_CGROUPS = (
    (re.compile(r"lxc\.payload\.(.+)"), "lxc"),
    (re.compile(r"systemd-nspawn@(.+)\.service"), "nspawn"),
    (re.compile(r"machine-(.+)\.scope"), "machine"),
    (re.compile(r"crio-([0-9a-f]{64})(?:\.scope)?"), "cri-o"),
    (re.compile(r"cri-containerd-([0-9a-f]{64})(?:\.scope)?"), "containerd"),
    (re.compile(r"docker-([0-9a-f]{64})(?:\.scope)?"), "docker"),
    (re.compile(r"libpod-([0-9a-f]{64})(?:\.scope)?"), "podman"),
)
_SERVICE = re.compile(r"(.+)\.service")
_ID = re.compile(r"[0-9a-f]{64}")
# containerd's clients choose the id: containerd's identifiers become part of paths and have no
# slash.
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_SHORT = 12
# With these capabilities a process in our pid and user namespaces can enter our mount namespace.
_HOSTS = (CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE)


class Running(Value):
    """A container: its init's `pid`, its namespaces' inode numbers, and what it is called.

    `engine` is podman, cri-o, containerd, docker, lxc, nspawn, machine or systemd, or None.  `id`
    is the engine's id; `image` is known only from an API.  `vouched` means that root's own
    engine says all this.  `runtime` is the path of the OCI runtime on the command line of root's
    conmon; it is compared, and never opened.
    """

    __slots__ = ("engine", "id", "image", "mount", "name", "pid", "runtime", "user", "vouched")
    pid: int
    user: int
    mount: int
    engine: str | None
    name: str | None
    id: str | None
    runtime: str | None
    image: str | None
    vouched: bool

    @property
    def label(self) -> str:
        """What to call the container: its name, its id, or the pid of its first process."""
        return self.name or (self.id or "")[:_SHORT] or f"pid {self.pid}"


class _Seen(Value):
    __slots__ = ("mount", "pid", "start", "user")
    pid: int
    user: int
    mount: int
    start: int


def containers() -> list[Running]:
    """The containers that we may look at, the oldest first.

    Processes in our own mount namespace, or in that of pid 1, are in no container.  A mount
    namespace that was made within a container is listed on its own, with that container's name.
    """
    oldest: dict[int, _Seen] = {}
    for pid in pids():
        try:
            seen = _see(pid)
        except OSError:  # The process has ended, or we may not look at it.
            continue
        if seen.mount not in oldest or seen.start < oldest[seen.mount].start:
            oldest[seen.mount] = seen
    host = {_namespace("self", "mnt")}
    with suppress(OSError):
        host.add(_namespace(1, "mnt"))
    found = sorted((one for mount, one in oldest.items() if mount not in host), key=_start_of)
    known = _from_podman()
    named = cache(docker.names)
    return [_running(one, known, named) for one in found]


def find(name: str) -> Running:
    """The one container that is called `name`, or whose id is or begins with `name`.

    Namespaces that were made within a container count as that container.  Our own containers come
    first: other users name theirs as they like.  Raises HookError (USAGE) unless exactly one fits.
    """
    every = containers()
    around = {one.pid: _outermost(one) for one in every}
    ours = [one for one in every if one.vouched or around[one.pid][1] == os.geteuid()]
    oldest: dict[tuple[str | int | None, ...], Running] = {}
    for one in _called(name, ours) or _called(name, every):
        oldest.setdefault((one.engine, one.name, one.id, around[one.pid][0]), one)
    found = list(oldest.values())
    if len(found) == 1:
        return found[0]
    if found:
        those = ", ".join(f"{one.label} (pid {one.pid})" for one in found)
        raise HookError(USAGE, f"{quote(name)} may be any of {those}; choose one by --pid")
    engines = (one for one in every if one.engine not in (None, "systemd"))
    labels = ", ".join(one.label for one in engines)
    hint = f"these run: {labels}" if labels else "none runs here that we can see"
    raise HookError(USAGE, f"no running container is called {quote(name)}; {hint}")


def of_process(pid: int) -> Running:
    """The container of the process `pid`, which counts as the container's init.

    Raises HookError (BAD_STATE).
    """
    try:
        return _running(_see(pid), {}, docker.names)
    except OSError as error:
        raise HookError(BAD_STATE, f"process {pid} can't be looked at: {error.strerror}") from None


def _called(name: str, those: list[Running]) -> list[Running]:
    found = [one for one in those if name in (one.name, one.id)]
    return found or [one for one in those if one.id and one.id.startswith(name)]


def _outermost(one: Running) -> tuple[int, int]:
    """The outermost user namespace around the container, and the user who owns that namespace."""
    try:
        with Process(one.pid) as process:
            return outermost(process)[0], user_behind(process)
    except (HookError, OSError):
        return one.user, -1


def _start_of(one: _Seen) -> int:
    return one.start


def _see(pid: int) -> _Seen:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # The 22nd field; the command's name, in parentheses, may itself have blanks and parentheses.
    start = int(stat.rpartition(")")[2].split()[19])
    return _Seen(pid=pid, user=_namespace(pid, "user"), mount=_namespace(pid, "mnt"), start=start)


def _namespace(pid: int | str, kind: str) -> int:
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def _running(
    one: _Seen,
    known: dict[int, tuple[str, str, str]],
    of_docker: Callable[[], dict[str, tuple[str, str]]],
) -> Running:
    watched = _by_watcher(one.pid)
    named, vouched = watched or (by_cgroup(_cgroup(one.pid)), False)
    engine, name, identity, runtime = named
    image = None
    if one.pid in known:
        engine, vouched = "podman", os.geteuid() == 0
        name, identity, image = known[one.pid]
    elif engine == "docker" and vouched and identity:
        name, image = of_docker().get(identity, (None, None))
    return Running(
        pid=one.pid,
        user=one.user,
        mount=one.mount,
        engine=engine,
        name=name,
        id=identity,
        runtime=runtime,
        image=image,
        vouched=vouched,
    )


_Named = tuple[str | None, str | None, str | None, str | None]


def _by_watcher(pid: int) -> tuple[_Named, bool] | None:
    """The engine, name, id and runtime on the command line of a container's watcher, its parent.

    The second value says whether the watcher is root's; a user may claim anything about containers
    of their own.
    """
    parent = pid
    for _ in range(4):
        try:
            child, parent = parent, _parent(parent)
            if parent <= 1:
                return None
            arguments = Path(f"/proc/{parent}/cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            return None
        words = arguments.rstrip("\0").split("\0")
        command = words[0].rpartition("/")[2]
        # If an option is given twice the first counts: the engine's options come before the user's.
        given = dict(zip(words[-2::-1], words[:0:-1], strict=False))
        if command != "conmon" and not command.startswith("containerd-shim"):
            continue
        roots = _is_roots(parent, child, command, arguments)
        if roots or _is_a_users(pid):
            if command != "conmon":
                return _shim(pid, given), roots
            return (*_conmon(words, given), given.get("-r") if roots else None), roots
    return None


def _parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(stat.rpartition(")")[2].split()[1])


def _is_roots(watcher: int, child: int, command: str, arguments: str) -> bool:
    """Whether `watcher` belongs to the host's root, and runs the installed `command`.

    A user can start a set-user-id program with any command line, and the root of a container
    without a user namespace any program.  But neither can start the installed `command` as root and
    as one of the host's processes.  `arguments` and `child` show that the pid is still that of the
    process that was read.
    """
    try:
        with Process(watcher) as process:
            program = os.stat("exe", dir_fd=process.proc)
            link = os.readlink("exe", dir_fd=process.proc)
            return (
                is_roots(process)
                and _is_the_hosts(process)
                and is_program(program, link, command)
                and read(process, "cmdline")
                .encode("utf-8", "surrogateescape")
                .decode("utf-8", "replace")
                == arguments
                and _parent(child) == watcher
            )
    except (HookError, OSError):
        return False


def _is_the_hosts(process: Process) -> bool:
    """Whether `process` is of this host, and not of a container without a user namespace.

    The host's processes are in the initial user namespace, in our pid namespace, and in our mount
    namespace.  But engines start watchers in mount namespaces of their own, too: podman does for
    every container with a user namespace (podman: libpod/oci_conmon_linux.go, 5.2 and before), and
    systemd for a service with PrivateTmp=.  Such a watcher has our root directory and the
    capabilities to enter our mount namespace, which an engine takes from a container; a process
    with these is the host's root anyway, and has no need to deceive us.  Raises OSError.
    """
    if not process.is_on_host() or not _same("pid", process.proc):
        return False
    if _same("mnt", process.proc):
        return True
    root = os.stat("root/.", dir_fd=process.proc)
    if not os.path.samestat(root, os.stat("/")):
        return False
    who = status(process)
    return all(who.has(capability) for capability in _HOSTS)


def _same(kind: str, proc: int) -> bool:
    """Whether the process with the /proc fd `proc` is in our own namespace of this `kind`."""
    ours = os.stat(f"/proc/self/ns/{kind}")
    return os.path.samestat(ours, os.stat(f"ns/{kind}", dir_fd=proc))


def _is_a_users(pid: int) -> bool:
    """Whether the container of `pid` is a user's own, about which the user may claim anything."""
    try:
        with Process(pid) as process:
            return outermost_owner(process) != 0
    except (HookError, OSError):
        return False


def _conmon(words: list[str], given: dict[str, str]) -> tuple[str | None, str | None, str | None]:
    """The engine, name and id on conmon's command line, `words`, whose options are `given`."""
    # podman has conmon run podman itself when the container ends; CRI-O doesn't.
    ends = given.get("--exit-command", "").rpartition("/")[2]
    engine = "podman" if ends == "podman" or any("libpod" in word for word in words) else "cri-o"
    identity = given.get("-c", "")
    return engine, given.get("-n"), identity if _ID.fullmatch(identity) else None


def _shim(pid: int, given: dict[str, str]) -> _Named:
    # A pod's containers have one shim, whose -id is the first one's; the cgroup names each one's
    # own id.
    engine, _, identity, _ = by_cgroup(_cgroup(pid))
    # An administrator may have given the namespace another name; systemd's cgroups have Docker's.
    if engine != "docker":
        engine = "docker" if docker.is_namespace(given.get("-namespace")) else "containerd"
    told = given.get("-id", "")
    return engine, None, identity or (told if _NAME.fullmatch(told) else None), None


def by_cgroup(text: str) -> _Named:
    """The engine, name and id from the text of /proc/PID/cgroup, which names no runtime."""
    for line in text.split("\n"):
        names = line.rpartition(":")[2].split("/")
        for above, name in zip(["", *names], names, strict=False):
            for pattern, engine in _CGROUPS:
                match = pattern.fullmatch(name)
                if match:
                    known = bool(_ID.fullmatch(match[1]))
                    return engine, None if known else match[1], match[1] if known else None, None
            if _ID.fullmatch(name):
                return "docker" if above == "docker" else None, None, name, None
    for name in text.replace("\n", "/").split("/"):
        match = _SERVICE.fullmatch(name)
        if match:
            return "systemd", match[1], None, None
    return None, None, None, None


def _cgroup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def _sockets() -> Iterator[str]:
    """The URLs at which our own podman's API may answer; another user's podman is not asked."""
    given = os.environ.get("CONTAINER_HOST", "").removeprefix("unix://")
    run = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    paths = (given, f"{run}/podman/podman.sock", "/run/podman/podman.sock")
    for path in dict.fromkeys(paths):
        if os.geteuid() == 0:
            # An environment that sudo(8) passed on may name a path of somebody else's choice.
            if roots_alone(path) is not None:
                yield f"unix://{path}"
            continue
        with suppress(OSError):
            if os.stat(path).st_uid == os.geteuid():
                yield f"unix://{path}"


def _from_podman() -> dict[int, tuple[str, str, str]]:
    """Name, id and image of podman's containers by their pid; {} if no API answers."""
    found: dict[int, tuple[str, str, str]] = {}
    for url in _sockets():
        try:
            from podman import PodmanClient
        except ImportError:  # Without it the names come from /proc, but the image isn't known.
            return {}
        # An error of podman's service must not stop us from looking at containers.
        with suppress(Exception), PodmanClient(base_url=url, timeout=2) as client:
            for one in client.containers.list():
                attributes = one.attrs
                pid = attributes.get("Pid") or attributes.get("State", {}).get("Pid")
                if pid:
                    image = str(attributes.get("Image") or attributes.get("ImageName") or "")
                    found[int(pid)] = (str(one.name), str(one.id), image)
    return found


def first_process(one: Running) -> str:
    """The name of the container's first process, or "?" if the process has ended."""
    try:
        return comm(one.pid)
    except OSError:
        return "?"
