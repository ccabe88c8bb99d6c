"""The policy in the file that people write, or the one that is shipped, in its compiled form.

This takes YAML and a schema, far longer than all else, and so it is done once for each file: what
comes of it is kept (`policycache`).
"""

import posix
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

_MAX = 16 << 20
# A file that was changed this recently, in nanoseconds, may change again within the same
# tick of the file system's clock and look the same.
SETTLED = 2_000_000_000
_TRIES = 100
# Who waits longer than these seconds for somebody else's turn to end goes on without: the
# engine waits for the hook, 15 seconds by the shipped JSON.
_PATIENCE = 5.0
_POLL = 0.05
_LOCK = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC


def in_turn(
    run: str, look: "Callable[[], Compiled | None]", make: "Callable[[], Compiled]"
) -> "Compiled":
    """What somebody else has compiled meanwhile, as `look` finds it, or else what `make` does.

    Of fifty containers that start at once one does the work, which takes seconds for a policy of
    thousands of rules, and would for each take fifty times that on the same processors.
    """
    try:
        _make(run)
        fd = posix.open(f"{run}/.lock", _LOCK, 0o600)
    except OSError:  # There is no turn to be had.
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
    """The compiled form of the policy in the file `source`, -1 for the built-in one.

    `source` is open on the path `etc`, and the policy of that `identity`, which stands for the
    kernel and the C `header` too; below `run` it is kept for the next time.  Raises HookError
    (BAD_POLICY), and USAGE for the header.
    """
    settled = True
    if source < 0:
        head, rules = _builtin()
    else:
        text = _steady(source, etc)
        # Not its mtime, which anybody may set to next year.
        settled = time_ns() - posix.fstat(source).st_ctime_ns > SETTLED
        head, rules = _load(text, etc)
    names = {option: enum.values for option, enum in kernel.enums(KINDS, header=header).items()}
    compiled = pack({**head, "identity": identity, "names": names}, rules)
    if settled:
        _keep(run, compiled + END.pack(len(compiled)))
    return compiled


def _builtin() -> "tuple[dict[str, Any], list[Rule]]":
    """The built-in policy: the shipped file, compiled by contrib/compile-builtin-policy."""
    fd = posix.open(paths.BUILTIN, FILE)
    try:
        builtin = load_json(_whole(fd, paths.BUILTIN))
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
        from .file import load
    except ImportError as error:
        raise HookError(
            BAD_POLICY,
            f"to read {etc} takes PyYAML and jsonschema for /usr/bin/python3 ({error}); "
            "install python3-yaml and python3-jsonschema",
        ) from None
    loaded = load(text, etc)
    return loaded.header, loaded.rules


def _keep(run: str, compiled: bytes) -> None:
    """Keep the compiled form for the next time, whole or not at all; never an error."""
    try:
        _make(run)
        # What a crash of the host leaves of it is found to be damaged.
        whole.write(f"{run}/{CACHE}", compiled, mode=0o600, sync=False)
    except OSError:
        pass


def _make(run: str) -> None:
    try:
        posix.mkdir(run, 0o755)
        # Whatever the umask: the broker's socket is there as well, for everybody.
        posix.chmod(run, 0o755)
    except FileExistsError:
        pass


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
        return read_all(fd, _MAX)
    except ValueError:
        raise HookError(BAD_POLICY, f"{path} is larger than {_MAX} bytes") from None
