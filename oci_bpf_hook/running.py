"""Which containers run on this host, whatever engine started them: by /proc, and podman's API.

A container is a mount namespace in a user namespace of its own; its init is the process that
has been in it longest.  Engines say their name for it on the command line of the process that
watches over it (conmon, containerd's shim), LXC and systemd in the name of its cgroup.

Whoever is in a container can run something called conmon and make cgroups too.  So a watcher
is believed that is root's and on the host, of the cgroups the outermost one counts, and what is
a user's own has whatever name that user says: nothing that it names is ever opened or run.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .container import Process
from .errors import BAD_STATE, USAGE, HookError, quote
from .processes import comm, pids
from .record import Record

# What engines and systemd call a container's cgroup, a name or an id.
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
_SHORT = 12


class Running(Record):
    """A container: its init's `pid`, its namespaces' inode numbers, and what it is called.

    `engine` is podman, cri-o, containerd, docker, lxc, nspawn, machine or systemd, or None;
    `runtime` the OCI runtime's path where root's conmon tells it; `id` the engine's; `image` only
    podman's API tells.
    """

    __slots__ = ("engine", "id", "image", "mount", "name", "pid", "runtime", "user")
    pid: int
    user: int
    mount: int
    engine: str | None
    name: str | None
    id: str | None
    runtime: str | None
    image: str | None

    @property
    def label(self) -> str:
        """What to call it: by its name, its id, or its first process."""
        return self.name or (self.id or "")[:_SHORT] or f"pid {self.pid}"


class _Seen(Record):
    __slots__ = ("mount", "pid", "start", "user")
    pid: int
    user: int
    mount: int
    start: int


def containers() -> list[Running]:
    """The containers that we may look at, the oldest first.

    Those in our own mount namespace or with the initial one's init aren't any.  A mount namespace
    that somebody made within a container is one of its own, with the container's name.
    """
    oldest: dict[int, _Seen] = {}
    for pid in pids():
        try:
            seen = _see(pid)
        except OSError:  # It has gone, or isn't ours to look at.
            continue
        if seen.mount not in oldest or seen.start < oldest[seen.mount].start:
            oldest[seen.mount] = seen
    host = {_namespace("self", "mnt")}
    with suppress(OSError):
        host.add(_namespace(1, "mnt"))
    found = sorted((one for mount, one in oldest.items() if mount not in host), key=_start_of)
    known = _from_podman()
    return [_running(one, known) for one in found]


def find(name: str) -> Running:
    """The one container that is called `name`, or whose id is it or begins with it.

    What somebody made within a container is that container.  Our own come first: what others call
    theirs is up to them.  Raises HookError (USAGE) where there is none, or more than one.
    """
    every = containers()
    around = {one.pid: _outermost(one) for one in every}
    ours = [one for one in every if around[one.pid][1] == os.geteuid()]
    oldest: dict[tuple[str | int | None, ...], Running] = {}
    for one in _called(name, ours) or _called(name, every):
        oldest.setdefault((one.engine, one.name, one.id, around[one.pid][0]), one)
    found = list(oldest.values())
    if len(found) == 1:
        return found[0]
    if found:
        those = ", ".join(f"{one.label} (pid {one.pid})" for one in found)
        raise HookError(USAGE, f"{quote(name)} may be each of {those}; say which by --pid")
    engines = (one for one in every if one.engine not in (None, "systemd"))
    labels = ", ".join(one.label for one in engines)
    hint = f"there are {labels}" if labels else "none runs here that we can see"
    raise HookError(USAGE, f"no running container is called {quote(name)}; {hint}")


def of_process(pid: int) -> Running:
    """The container of the process `pid`, with that pid for its init's.

    Raises HookError (BAD_STATE).
    """
    try:
        return _running(_see(pid), {})
    except OSError as error:
        raise HookError(BAD_STATE, f"process {pid} can't be looked at: {error.strerror}") from None


def _called(name: str, those: list[Running]) -> list[Running]:
    found = [one for one in those if name in (one.name, one.id)]
    return found or [one for one in those if one.id and one.id.startswith(name)]


def _outermost(one: Running) -> tuple[int, int]:
    """The user namespace that it and all that was made within it are in, and whose that is."""
    try:
        with Process(one.pid) as process:
            return process.outermost()
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


def _running(one: _Seen, known: dict[int, tuple[str, str, str]]) -> Running:
    engine, name, identity, runtime = _by_watcher(one.pid) or by_cgroup(_cgroup(one.pid))
    image = None
    if one.pid in known:
        engine = "podman"
        name, identity, image = known[one.pid]
    return Running(
        pid=one.pid,
        user=one.user,
        mount=one.mount,
        engine=engine,
        name=name,
        id=identity,
        runtime=runtime,
        image=image,
    )


_Named = tuple[str | None, str | None, str | None, str | None]


def _by_watcher(pid: int) -> _Named | None:
    """The engine, name, id and runtime that a container's watcher, its parent, was told."""
    parent = pid
    for _ in range(4):
        try:
            stat = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8", errors="replace")
            parent = int(stat.rpartition(")")[2].split()[1])
            if parent <= 1:
                return None
            arguments = Path(f"/proc/{parent}/cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            return None
        words = arguments.rstrip("\0").split("\0")
        command = words[0].rpartition("/")[2]
        # The first of two counts: an engine's own come before what whoever runs it may add.
        given = dict(zip(words[-2::-1], words[:0:-1], strict=False))
        if command != "conmon" and not command.startswith("containerd-shim"):
            continue
        roots = _is_roots(parent, command)
        if roots or _is_a_users(pid):
            if command != "conmon":
                return _shim(pid, given)
            return *_conmon(words, given), given.get("-r") if roots else None
    return None


def _is_roots(watcher: int, command: str) -> bool:
    """Whether `watcher` is root's and on the host, and its program called `command`.

    A user can have a set-user-id program say on its command line whatever they like.
    """
    try:
        with Process(watcher) as process:
            program = os.readlink("exe", dir_fd=process.proc).removesuffix(" (deleted)")
            roots = process.is_on_host() and os.fstat(process.proc).st_uid == 0
            return roots and program.rpartition("/")[2] == command
    except (HookError, OSError):
        return False


def _is_a_users(pid: int) -> bool:
    """Whether the container of `pid` is a user's own, who says what they like of it."""
    try:
        with Process(pid) as process:
            return process.outermost_owner() != 0
    except (HookError, OSError):
        return False


def _conmon(words: list[str], given: dict[str, str]) -> tuple[str | None, str | None, str | None]:
    """The engine, name and id."""
    # podman has conmon run podman itself when the container ends; CRI-O has not.
    ends = given.get("--exit-command", "").rpartition("/")[2]
    engine = "podman" if ends == "podman" or any("libpod" in word for word in words) else "cri-o"
    identity = given.get("-c", "")
    return engine, given.get("-n"), identity if _ID.fullmatch(identity) else None


def _shim(pid: int, given: dict[str, str]) -> _Named:
    # A pod's containers have one shim, whose -id is the first one's; the cgroup has the own one.
    engine = "docker" if given.get("-namespace") == "moby" else "containerd"
    identity = by_cgroup(_cgroup(pid))[2] or given.get("-id")
    return engine, None, identity, None


def by_cgroup(text: str) -> _Named:
    """The engine, name and id that /proc/PID/cgroup's text tells; it never tells the runtime."""
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
    """Where our own podman's API may answer, as URLs; another user's is not asked."""
    given = os.environ.get("CONTAINER_HOST", "").removeprefix("unix://")
    run = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}")
    paths = (given, f"{run}/podman/podman.sock", "/run/podman/podman.sock")
    for path in dict.fromkeys(paths):
        with suppress(OSError):
            if os.stat(path).st_uid == os.geteuid():
                yield f"unix://{path}"


def _from_podman() -> dict[int, tuple[str, str, str]]:
    """Name, id and image of podman's containers by their pid; {} where nobody answers."""
    found: dict[int, tuple[str, str, str]] = {}
    for url in _sockets():
        try:
            from podman import PodmanClient
        except ImportError:  # /proc has the names too, but for the image.
            return {}
        # Whatever is wrong with somebody else's service isn't with what we look at.
        with suppress(Exception), PodmanClient(base_url=url, timeout=2) as client:
            for one in client.containers.list():
                attributes = one.attrs
                pid = attributes.get("Pid") or attributes.get("State", {}).get("Pid")
                if pid:
                    image = str(attributes.get("Image") or attributes.get("ImageName") or "")
                    found[int(pid)] = (str(one.name), str(one.id), image)
    return found


def first_process(one: Running) -> str:
    """The name of the container's first process, "?" if that has gone."""
    try:
        return comm(one.pid)
    except OSError:
        return "?"
