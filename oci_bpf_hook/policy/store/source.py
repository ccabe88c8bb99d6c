"""Compiles the policy that people write, or the built-in one, and keeps the result for `cache`.

Reading YAML and checking a schema takes far longer than all else that the hook does, so each file
is compiled only once, also on a host where that takes longer than a hook may.
"""

import posix
from _signal import alarm
from time import monotonic, sleep, time_ns

from ... import paths, whole
from ...bpf.names import KINDS
from ...errors import BAD_POLICY, HookError
from ...files import FILE, read_all
from ...kernel import enums as kernel
from ...paths import CACHE
from ...text.strict_json import load_json
from ..compiled import END
from ..pack import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..compiled import Compiled, Rule

# The most bytes of a policy's file.
_MAX = 16 << 20
# In nanoseconds: a file that was changed more recently than that may change again within the same
# tick of the file system's clock, and would then look unchanged.
SETTLED = 2_000_000_000
_TRIES = 100
# Seconds to wait while another process compiles.  After that this process compiles too, because the
# engine waits for the hook (15 seconds, according to the JSON in hooks.d).
_PATIENCE = 5.0
_POLL = 0.05
# Seconds that an heir takes at most; the number of the policy's fd in it, and one above all fds.
_LONGEST = 600
_SOURCE = 100
_FDS = 1 << 16
_LOCK = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


def in_turn(
    run: str, look: "Callable[[], Compiled | None]", make: "Callable[[], Compiled]"
) -> "Compiled":
    """The policy that another process has compiled meanwhile, or else the one that we compile.

    `look` finds the first, and `make` makes the second.  `run` is the directory of the lock.
    If fifty containers start at once, the hook of one compiles and the others wait for it.  A
    policy of thousands of rules takes seconds, and if all fifty compiled it, each would take fifty
    times as long.
    """
    try:
        whole.make_directory(run)
        fd = posix.open(f"{run}/.lock", _LOCK, 0o600)
    except OSError:  # Without a lock everybody compiles.
        return make()
    try:
        deadline = monotonic() + _PATIENCE
        while True:
            ours = _lock(fd)
            found = look()
            if found is not None:
                return found
            if ours or monotonic() >= deadline:
                return make()
            sleep(_POLL)
    finally:
        posix.close(fd)


def _lock(fd: int) -> bool:
    try:
        posix.lockf(fd, posix.F_TLOCK, 0)
    except OSError:
        return False
    return True


def compile_policy(
    source: int, identity: list[object], header: str | None, etc: str, run: str
) -> bytes:
    """The compiled form of the policy in the file `source`, or of the built-in one if that is -1.

    `source` is an fd on the path `etc`.  `identity` is what the compiled form is made from, with
    the kernel and the C `header`.  The result is kept in the directory `run`.  Raises HookError
    (BAD_POLICY, or USAGE for the header).
    """

    def compile_(source: int) -> bytes:
        return _compile(source, identity, header, etc, run)

    pid, alive = _heir(run, source, compile_)
    try:
        return compile_(source)
    finally:
        if pid:
            _dismiss(pid, alive)


def _compile(source: int, identity: list[object], header: str | None, etc: str, run: str) -> bytes:
    settled = True
    if source < 0:
        head, rules = _builtin()
    else:
        text = _steady(source, etc)
        # The mtime isn't used, since anybody who may write to the file can set it to any time.
        settled = time_ns() - posix.fstat(source).st_ctime_ns > SETTLED
        head, rules = _load(text, etc)
    names = {option: enum.values for option, enum in kernel.enums(KINDS, header=header).items()}
    compiled = pack({**head, "identity": identity, "names": names}, rules)
    if settled:
        _keep(run, compiled + END.pack(len(compiled)))
    return compiled


def _heir(run: str, source: int, compile_: "Callable[[int], object]") -> tuple[int, int]:
    """Fork a process that compiles the policy if this one is killed before it has done so.

    An engine kills a hook after 15 seconds.  On a host where compiling takes longer, every hook
    would be killed, and each would begin anew.  `compile_` takes an fd in the place of `source`.
    Returns the pid, and an fd to which this process writes when it no longer needs an heir; 0 and
    -1 if there is none.
    """
    try:
        waiting, alive = posix.pipe2(posix.O_CLOEXEC)
        pid = posix.fork()
    except OSError:
        return 0, -1
    if pid:
        posix.close(waiting)
        return pid, alive
    try:
        posix.close(alive)
        posix.setsid()
        alarm(_LONGEST)
        if not posix.read(waiting, 1):  # Nobody is left who could write.
            _inherit(run, source, compile_)
    finally:
        posix._exit(0)


def _dismiss(pid: int, alive: int) -> None:
    """End the heir `pid`, which has nothing to do."""
    try:
        posix.write(alive, b".")
        posix.close(alive)
        posix.waitpid(pid, 0)
    except OSError:  # It has been killed, or reaped.
        pass


def _inherit(run: str, source: int, compile_: "Callable[[int], object]") -> None:
    """Compile the policy as the heir, unless somebody else does; errors are for who asks next."""
    # The runtime reads the hook's output until nobody has it open any more, and others of the
    # hook's fds are on a container that may have ended.
    if source >= 0:
        posix.dup2(source, _SOURCE)
        source = _SOURCE
    posix.closerange(0, _SOURCE)
    posix.closerange(_SOURCE + 1, _FDS)
    for _ in range(3):
        posix.open("/dev/null", posix.O_RDWR)
    if _lock(posix.open(f"{run}/.lock", _LOCK, 0o600)):
        compile_(source)


def _builtin() -> "tuple[dict[str, Any], list[Rule]]":
    """The built-in policy, which contrib/compile-builtin-policy has compiled."""
    fd = posix.open(paths.BUILTIN, FILE)
    try:
        builtin = load_json(_whole(fd, paths.BUILTIN))
    finally:
        posix.close(fd)
    assert isinstance(builtin, dict)  # The file is part of this package.
    return builtin["header"], builtin["rules"]


def _load(text: bytes, etc: str) -> "tuple[dict[str, Any], list[Rule]]":
    """The policy in the YAML `text`; only this needs packages outside the standard library."""
    import site
    import sys

    # For speed the launcher leaves out the directories of packages.  They are root's, and their
    # .pth files aren't run.
    sys.path += [path for path in site.getsitepackages() if path not in sys.path]
    try:
        from .file import load
    except ImportError as error:
        raise HookError(
            BAD_POLICY,
            f"{etc} can't be read without PyYAML and jsonschema for /usr/bin/python3 ({error}); "
            "install python3-yaml and python3-jsonschema",
        ) from None
    loaded = load(text, etc)
    return loaded.header, loaded.rules


def _keep(run: str, compiled: bytes) -> None:
    """Keep the compiled form for the next time, whole or not at all; never an error."""
    try:
        whole.make_directory(run)
        # It needs no fsync: if the host crashes, `cache` sees that the file is damaged.
        whole.write(f"{run}/{CACHE}", compiled, mode=0o600, sync=False)
    except OSError:
        pass


def _steady(fd: int, path: str) -> bytes:
    """The content of the file `fd`, which nobody wrote to while it was read."""
    for _ in range(_TRIES):
        before = posix.fstat(fd)
        posix.lseek(fd, 0, 0)
        text = _whole(fd, path)
        after = posix.fstat(fd)
        if (before.st_mtime_ns, len(text)) == (after.st_mtime_ns, after.st_size):
            return text
    raise HookError(BAD_POLICY, f"{path} is being changed all the time, so it can't be read")


def _whole(fd: int, path: str) -> bytes:
    try:
        return read_all(fd, _MAX)
    except ValueError:
        raise HookError(BAD_POLICY, f"{path} is larger than {_MAX} bytes") from None
