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
_SOURCE_MAX = 16 << 20
# A file that was changed this recently, in nanoseconds, may change again within the same
# tick of the file system's clock and look the same.
_SETTLED = 2_000_000_000
_TRIES = 100
_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
_FILE = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


def in_force(*, header: str | None = None, etc: str = ETC, run: str = RUN) -> Compiled:
    """The policy in force, with the running kernel's names.

    `header` is the C header with the names where the kernel has no BTF.  Raises HookError
    (BAD_POLICY), and USAGE for the header.
    """
    try:
        source = _open_trusted(etc)
    except FileNotFoundError:
        source = -1
    except OSError as error:
        raise HookError(BAD_POLICY, f"{etc} can't be read: {error.strerror}") from None
    try:
        identity = _identity(source, header)
        cached = _cached(run, identity)
        return cached or _compile(source, identity, header, etc, run)
    finally:
        if source >= 0:
            posix.close(source)


def _identity(source: int, header: str | None) -> list[object]:
    """What a compiled form belongs to: a version of ours, a kernel, and a file or none."""
    kernel = posix.uname()
    identity: list[object] = [__version__, kernel.release, kernel.version, header]
    if source >= 0:
        status = posix.fstat(source)
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
    return Compiled(lambda offset, size: compiled[offset : offset + size], load_json)


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


def _cached(run: str, identity: list[object]) -> Compiled | None:
    """The compiled form that belongs to the file of that `identity`, or None."""
    try:
        fd = _open_trusted(f"{run}/{_CACHE}")
    except (OSError, HookError):
        return None
    try:
        compiled = _read(fd)
    except HookError:
        return None
    return compiled if compiled.identity == identity else None


def _read(fd: int) -> Compiled:
    """The compiled policy in the file `fd`, which it keeps open."""
    try:
        return Compiled(lambda offset, size: posix.pread(fd, size, offset), load_json)
    except (OSError, ValueError, TypeError, KeyError) as error:
        posix.close(fd)
        raise HookError(BAD_POLICY, f"the compiled policy is damaged: {error!r}") from None


def _keep(run: str, compiled: bytes) -> None:
    """Keep the compiled form for the next time, whole or not at all; never an error."""
    name = f"{run}/.{_CACHE}.{posix.getpid()}"
    try:
        try:
            posix.mkdir(run, 0o700)
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
