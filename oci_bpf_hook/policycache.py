"""The policy that is in force, from its compiled form where that is in order.

/etc/oci-bpf-hook/policy.yaml decides; where it doesn't exist, the built-in policy does.  To
read it takes YAML and a schema, far longer than everything else here, so its compiled form
is kept in /run/oci-bpf-hook and used only if it belongs to exactly this file and nothing
about it is off.  Whatever is wrong with the policy is an error: what can't be read allows
nothing.
"""

import posix
from time import time_ns

from . import __version__
from .errors import BAD_POLICY, HookError
from .log import ERROR, INFO, log
from .policy import Compiled, pack
from .state import load_json, read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .policy import Rule

ETC = "/etc/oci-bpf-hook/policy.yaml"
RUN = "/run/oci-bpf-hook"
BUILTIN = __file__.rpartition("/")[0] + "/builtin_policy.json"
_CACHE = "policy.compiled"
# Whom a name in the policy means is in these: an id may be somebody else's tomorrow.
_OWNERS = ("/etc/passwd", "/etc/group")
_SOURCE_MAX = 16 << 20
# A file that was changed this recently, in nanoseconds, may change again within the same
# tick of the file system's clock and look the same.
_SETTLED = 2_000_000_000
_TRIES = 100
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
_FILE = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


def in_force(
    *, header: str | None = None, etc: str = ETC, run: str = RUN, in_memory: bool = False
) -> Compiled:
    """The policy in force, with the running kernel's names.

    `header` is the C header with the names where the kernel has no BTF.  Its compiled form stays
    open, and is read as far as it is needed, unless it is to be `in_memory`.  Raises HookError
    (BAD_POLICY), and USAGE for the header.
    """
    source = _open_source(etc)
    try:
        identity = _identity(source, header)
        cached = _cached(run, identity, in_memory=in_memory)
        return cached or _compile(source, identity, header, etc, run)
    finally:
        if source >= 0:
            posix.close(source)


class Watched:
    """The policy in force, for a process that stays: kept until its file is another."""

    def __init__(self, *, header: str | None = None, etc: str = ETC, run: str = RUN) -> None:
        self._header = header
        self._etc = etc
        self._run = run
        self._kept: Compiled | HookError | None = None
        # What file it was read from, and whether that may have changed unseen since.
        self._identity: list[object] = []
        self._steady = False

    def get(self) -> "Compiled | HookError":
        """The policy in force, or what is wrong with it; holds no fd."""
        try:
            identity = self._now()
            if self._kept is None or not self._steady or identity != self._identity:
                self._load(identity)
        except HookError as error:
            if str(error) != str(self._kept):
                log(ERROR, f"broker: the policy is out of order: {error}")
            self._kept = error
            self._steady = False
        assert self._kept is not None
        return self._kept

    def forget(self) -> None:
        """Read the file again the next time, whether it looks changed or not."""
        self._kept = None

    def _load(self, identity: list[object]) -> None:
        before = self._kept
        now = time_ns()
        self._kept = in_force(header=self._header, etc=self._etc, run=self._run, in_memory=True)
        self._steady = all(
            now - changed > _SETTLED for changed in identity[-2:] if isinstance(changed, int)
        )
        if before is None or identity != self._identity:
            log(INFO, "broker: the policy is in order and in force")
        self._identity = identity

    def _now(self) -> list[object]:
        source = _open_source(self._etc)
        try:
            return _identity(source, self._header)
        finally:
            if source >= 0:
                posix.close(source)


def _open_source(etc: str) -> int:
    """An fd on the policy's file, -1 if there is none.  Raises HookError (BAD_POLICY)."""
    try:
        return _open_trusted(etc)
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise HookError(BAD_POLICY, f"{etc} can't be read: {error.strerror}") from None


def _identity(source: int, header: str | None) -> list[object]:
    """What a compiled form belongs to: a version of ours, a kernel, and the files it is made of."""
    kernel = posix.uname()
    identity: list[object] = [__version__, kernel.release, kernel.version, header]
    # The built-in policy stands for this installation: another one's may have the same version.
    files: list[int | str] = [BUILTIN]
    if header:
        files.append(header)
    if source >= 0:
        # The last one's times are what says whether it may change unseen.
        files += [*_OWNERS, source]
    for file in files:
        try:
            status = posix.stat(file)
        except OSError:  # Whoever needs it says what is wrong.
            identity.append(None)
            continue
        identity += [status.st_dev, status.st_ino, status.st_size]
        identity += [status.st_mtime_ns, status.st_ctime_ns]
    return identity


def _compile(
    source: int, identity: list[object], header: str | None, etc: str, run: str
) -> Compiled:
    """The policy in the file `source`, -1 for the built-in one, read and kept for the next time."""
    from . import kernel
    from .names import KINDS

    settled = True
    if source < 0:
        head, rules = _builtin()
    else:
        text = _steady(source, etc)
        status = posix.fstat(source)
        settled = time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED
        head, rules = _load(text, etc)
    names = {option: enum.values for option, enum in kernel.enums(KINDS, header=header).items()}
    compiled = pack({**head, "identity": identity, "names": names}, rules)
    if settled:
        _keep(run, compiled)
    return _of(compiled)


def _builtin() -> "tuple[dict[str, Any], list[Rule]]":
    """The built-in policy: the shipped file, compiled by contrib/compile-builtin-policy."""
    fd = posix.open(BUILTIN, _FILE)
    try:
        builtin = load_json(_whole(fd, BUILTIN))
    finally:
        posix.close(fd)
    assert isinstance(builtin, dict)  # It is ours.
    return builtin["header"], builtin["rules"]


def _load(text: bytes, etc: str) -> "tuple[dict[str, Any], list[Rule]]":
    """The policy that people wrote; this alone needs what isn't in the standard library."""
    import site
    import sys

    # The launcher leaves them out, for speed: directories of root's, and no .pth files.
    sys.path += [path for path in site.getsitepackages() if path not in sys.path]
    try:
        from .policyfile import load
    except ImportError as error:
        raise HookError(
            BAD_POLICY,
            f"to read {etc} takes PyYAML and jsonschema for /usr/bin/python3 ({error}); "
            "install python3-yaml and python3-jsonschema",
        ) from None
    loaded = load(text, etc)
    return loaded.header, loaded.rules


def _open_trusted(path: str) -> int:
    """An fd on `path` for reading; it and every directory above it are root's alone."""
    directory = posix.open("/", _DIRECTORY)
    *names, last = path.strip("/").split("/")
    try:
        _check(directory, "/", path)
        so_far = ""
        for name in names:
            so_far = f"{so_far}/{name}"
            inner = posix.open(name, _DIRECTORY, dir_fd=directory)
            posix.close(directory)
            directory = inner
            _check(directory, so_far, path)
        fd = posix.open(last, _FILE, dir_fd=directory)
    finally:
        posix.close(directory)
    try:
        _check(fd, path, path)
        if posix.fstat(fd).st_mode & 0o170000 != 0o100000:
            raise HookError(BAD_POLICY, f"{path} is no regular file")
    except HookError:
        posix.close(fd)
        raise
    return fd


def _check(fd: int, path: str, what: str) -> None:
    status = posix.fstat(fd)
    if status.st_uid != 0:
        raise HookError(BAD_POLICY, f"{path} isn't root's, and so {what} can't be trusted")
    if status.st_mode & 0o022:
        raise HookError(
            BAD_POLICY,
            f"others than root can write {path}, and so {what} can't be trusted; chmod go-w {path}",
        )


def _cached(run: str, identity: list[object], *, in_memory: bool) -> Compiled | None:
    """The compiled form that belongs to the file of that `identity`, or None."""
    try:
        fd = _open_trusted(f"{run}/{_CACHE}")
    except (OSError, HookError):
        return None
    kept = False
    try:
        if in_memory:
            compiled = _of(read_all(fd))
        else:
            compiled = Compiled(lambda offset, size: posix.pread(fd, size, offset), load_json)
        kept = not in_memory and compiled.identity == identity
        return compiled if compiled.identity == identity else None
    except (OSError, ValueError, TypeError, KeyError):  # It is damaged.
        return None
    finally:
        if not kept:
            posix.close(fd)


def _of(compiled: bytes) -> Compiled:
    """The policy in these bytes."""
    return Compiled(lambda offset, size: compiled[offset : offset + size], load_json)


def _keep(run: str, compiled: bytes) -> None:
    """Keep the compiled form for the next time, whole or not at all; never an error."""
    name = f"{run}/.{_CACHE}.{posix.getpid()}"
    try:
        try:
            posix.mkdir(run, 0o755)
            # Whatever the umask: the broker's socket is there as well, for everybody.
            posix.chmod(run, 0o755)
        except FileExistsError:
            pass
        fd = posix.open(name, _NEW, 0o600)
    except OSError:
        return
    try:
        try:
            view = memoryview(compiled)
            while view:
                view = view[posix.write(fd, view) :]
        finally:
            posix.close(fd)
        posix.rename(name, f"{run}/{_CACHE}")
    except OSError:
        posix.unlink(name)


def _steady(fd: int, path: str) -> bytes:
    """The content of `fd`, read while nobody wrote to it; replaced it may be meanwhile."""
    for _ in range(_TRIES):
        before = posix.fstat(fd)
        posix.lseek(fd, 0, 0)
        text = _whole(fd, path)
        after = posix.fstat(fd)
        if (before.st_mtime_ns, len(text)) == (after.st_mtime_ns, after.st_size):
            return text
    raise HookError(BAD_POLICY, f"{path} changes all the time while it is read")


def _whole(fd: int, path: str) -> bytes:
    try:
        return read_all(fd, _SOURCE_MAX)
    except ValueError:
        raise HookError(BAD_POLICY, f"{path} is larger than {_SOURCE_MAX} bytes") from None
