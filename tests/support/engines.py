"""Real engines in a world of their own: podman, crun and runc for the tests that need containers.

Nothing here imports the product, mocks an engine or touches the host's: storage, configuration,
hooks and cgroups are the world's own, below one directory in /tmp, and mounts are made in a private
mount namespace. What the host can look like, and why each precaution, is said at the code for it.
"""

import ctypes
import functools
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Self

Runtime = Literal["crun", "runc"]
RUNTIMES: Final[tuple[Runtime, ...]] = ("crun", "runc")

# What a container needs for every program type: CAP_BPF for the token itself, the others by type.
CAPABILITIES: Final = ("BPF", "PERFMON", "NET_ADMIN", "SYS_ADMIN")
FIRST_ID: Final = 100000  # the container's root on the host, in every user namespace made here
ID_COUNT: Final = 65536

PROBE_SOURCE: Final = Path(__file__).resolve().parent.parent / "probe" / "probe.c"
TOOLS: Final = ("podman", "crun", "runc", "conmon", "busybox", "cc")

# Engines get this and nothing else of the caller's environment: CONTAINER_HOST, XDG_RUNTIME_DIR or
# a TMPDIR with odd characters would lead them out of the world.
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CGROUP: Final = Path("/sys/fs/cgroup")
# Where engines leave something whatever their configuration: networks, containers' states, caches.
_ENGINE_STATE: Final = ("/run/containers", "/run/crun", "/run/runc", "/var/lib/containers")

# Where the product keeps its policy, its compiled form and its audit trail.
_CHANGED: Final = ("/etc", "/run", "/var/log")

CompletedProcess = subprocess.CompletedProcess[str]


def missing_tools(tools: Iterable[str] = TOOLS) -> list[str]:
    """Return those of the tools that aren't installed, for a skip that names them."""
    return [tool for tool in tools if shutil.which(tool, path=_PATH) is None]


# ---- the private mount namespace ---------------------------------------------------------------

_CLONE_NEWNS: Final = 0x00020000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = [ctypes.c_int]
_libc.mount.argtypes = [*[ctypes.c_char_p] * 3, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]


def _check(result: int, call: str, path: str = "") -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", path or None)


def _mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    result = _libc.mount(
        source.encode(), os.fsencode(target), fstype.encode(), flags, data.encode()
    )
    _check(result, "mount", target)


def _umount(target: str) -> None:
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), "umount2", target)


def _mounts() -> list[tuple[str, str]]:
    # (mount point, file system type) of this namespace, in the order of mounting. The kernel writes
    # a space in a path as \040: none of the paths looked for here has one.
    lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    return [(fields[4], fields[fields.index("-") + 1]) for fields in map(str.split, lines)]


def _fresh_cgroup2() -> None:
    # crun refuses hybrid cgroups. The fresh mount shows the host's one cgroup2 hierarchy, which a
    # hybrid host has at /sys/fs/cgroup/unified, without the v1 controllers beside it.
    types = [fstype for point, fstype in _mounts() if point == str(_CGROUP)]
    if types and types[-1] == "cgroup2":
        return
    for _ in types:
        _umount(str(_CGROUP))  # lazily, and so with everything below it
    _mount("cgroup2", str(_CGROUP), "cgroup2", 0)


def _copy_on_write(directories: Iterable[str]) -> None:
    # Seen from here on with what is written into them; the host's stay as they are.
    base = Path("/mnt")
    _mount("tmpfs", str(base), "tmpfs", 0, "mode=0755")
    for directory in directories:
        upper = base / directory.strip("/").replace("/", "-")
        work = upper.with_suffix(".work")
        upper.mkdir(mode=0o755)
        work.mkdir()
        options = f"lowerdir={directory},upperdir={upper},workdir={work}"
        _mount("overlay", directory, "overlay", 0, options)


@functools.cache  # once a process; its children inherit the namespace and the mark
def enter_private_mounts() -> None:
    """Move this process into a mount namespace of its own, with /sys/fs/cgroup a pure cgroup2.

    The directories that engines write to whatever their configuration are empty and private there
    too; on the host they are created, empty, if there are none.

    Call it at the start of the session: everything that runs afterwards, engines included, sees the
    new mounts, and nothing reaches the host's. Needs CAP_SYS_ADMIN and a single-threaded process,
    since unshare(2) would move the calling thread alone.
    """
    if threading.active_count() != 1:
        raise RuntimeError("enter_private_mounts() must come before the first thread")
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
    _fresh_cgroup2()
    _copy_on_write(_CHANGED)
    for directory in _ENGINE_STATE:
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        _mount("tmpfs", directory, "tmpfs", 0, "mode=0700")


# ---- processes ---------------------------------------------------------------------------------


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> CompletedProcess:
    return subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={"PATH": _PATH, "LC_ALL": "C.UTF-8", **(env or {})},
        timeout=timeout,
    )


def require(done: CompletedProcess) -> CompletedProcess:
    # As check=True, but with the output in the message: CalledProcessError keeps it to itself.
    if done.returncode != 0:
        raise RuntimeError(
            f"exit status {done.returncode}: {done.args}\n{done.stdout}{done.stderr}"
        )
    return done


def has_sys_resource() -> bool:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (effective,) = (line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


def processes_of(directory: Path) -> Iterator[int]:
    # conmon and podman's clean-up are daemons: no children of ours any more, but their command line
    # has the world's directory, which no other process can know.
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        name = argv[0].rpartition(b"/")[2]
        ours = any(os.fsencode(directory) in argument for argument in argv)
        if ours and name in (b"conmon", b"podman", b"crun", b"runc"):
            yield int(entry.name)


def pauses_of(directory: Path) -> Iterator[int]:
    # What keeps a user's namespaces for the next podman, for ever. Its command line says nothing;
    # its environment is that of whoever started it.
    home = b"HOME=" + os.fsencode(directory / "home")
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            argv = (entry / "cmdline").read_bytes()
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if argv == b"catatonit\0-P\0" and home in variables:
            yield int(entry.name)


def wait_for_end(pid: int, seconds: float) -> None:
    # Waits on a pidfd, since the process is no child of ours, and kills it when time is up.
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll.poll(seconds * 1000)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def make_work_directory() -> Path:
    # In /tmp whatever TMPDIR and the checkout's path are: odd characters there are another test's
    # matter, and socket addresses end at 107 bytes. The container's root, a mere 100000 here, has
    # to walk through it: hence not mkdtemp's 0700.
    directory = Path(tempfile.mkdtemp(prefix="obh-", dir="/tmp"))
    directory.chmod(0o711)
    return directory


def remove_work_directory(directory: Path) -> None:
    inside = f"{directory}/"
    for point, _ in reversed(_mounts()):
        if point.startswith(inside):
            _umount(point)
    shutil.rmtree(directory)


def remove_cgroup(name: str) -> None:
    # Engines remove a container's cgroup but not its parent. Only empty ones can be removed.
    for directory, _, _ in os.walk(_CGROUP / name, topdown=False):
        Path(directory).rmdir()


class Closing:
    # A context manager that closes itself at the end.
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


# ---- what is in a container --------------------------------------------------------------------


@functools.cache
def _compiled_probe() -> bytes:
    with tempfile.TemporaryDirectory(prefix="obh-probe-", dir="/tmp") as directory:
        out = Path(directory) / "probe"
        flags = ["-static", "-O2", "-Wall", "-Wextra", "-Werror"]
        require(run(["cc", *flags, "-o", str(out), str(PROBE_SOURCE)]))
        return out.read_bytes()


def build_probe(dest: Path) -> Path:
    """Write the static probe (tests/probe/probe.c) to the path and return it.

    It is compiled once a session.
    """
    dest.write_bytes(_compiled_probe())
    dest.chmod(0o755)
    return dest


_PT_INTERP: Final = 3


def _is_static(binary: Path) -> bool:
    # A static ELF file has no PT_INTERP among its program headers. 64-bit, this machine's order.
    data = binary.read_bytes()
    (offset,) = struct.unpack_from("=Q", data, 32)
    size, count = struct.unpack_from("=HH", data, 54)
    types = [struct.unpack_from("=I", data, offset + size * i)[0] for i in range(count)]
    return _PT_INTERP not in types


def _find_busybox() -> Path:
    found = shutil.which("busybox", path=_PATH)
    if found is None or not _is_static(Path(found)):
        raise RuntimeError("a static busybox is needed: apt-get install busybox-static")
    return Path(found)


def make_rootfs(rootfs: Path, probe: Path) -> Path:
    """Make a root file system of busybox, its applets and the probe, and return its path."""
    for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    busybox = _find_busybox()
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in require(run([str(busybox), "--list"])).stdout.split():
        if applet != "busybox":
            (rootfs / "bin" / applet).symlink_to("busybox")
    shutil.copy(probe, rootfs / "bin/probe")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    (rootfs / "etc/group").write_text("root:x:0:\n", encoding="utf-8")
    return rootfs
