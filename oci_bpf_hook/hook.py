"""The hook: the OCI state on standard input, a delegated bpffs in the container.

An engine runs this in front of every start of a container that asks, so a container
that doesn't ask costs next to nothing, and what a request needs is imported when one
is there.  Only `main` turns an error into a line and an exit code.
"""

import _signal
import posix

from .annotations import asked
from .errors import BAD_STATE, BUG, DONE, USAGE, HookError, quote
from .state import annotations_of, load_json, read_stdin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from .masks import Grant
    from .names import Enum
    from .state import State


# Seconds that the runtime has for handing over the state.
_DEADLINE = 4


def main(arguments: "Sequence[str]") -> int:
    """Run the hook with its command line's `arguments`; its exit code, one of errors.EXITS."""
    identity = "?"
    try:
        _settle()
        state = _read_state()
        if not asked(annotations_of(state)):
            return DONE
        identity = state.get("id", "?") if isinstance(state, dict) else "?"
        _grant(state, _header(arguments))
        return DONE
    except HookError as error:
        return _report(identity, error.code, str(error))
    except Exception as error:  # noqa: BLE001  The one place: a bug is no traceback in a log.
        return _report(identity, BUG, _bug(error))


def _settle() -> None:
    """Leave behind what the runtime's process was."""
    # crun runs hooks with every signal blocked, and a mask is inherited.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    posix.closerange(3, 1 << 30)
    posix.chdir("/")
    posix.umask(0o077)


def _read_state() -> object:
    _signal.signal(_signal.SIGALRM, _too_late)
    _signal.alarm(_DEADLINE)
    data = read_stdin()
    _signal.alarm(0)
    try:
        return load_json(data)
    except ValueError as error:
        raise HookError(BAD_STATE, f"the state on stdin is no JSON: {error}") from None


def _too_late(number: int, frame: "FrameType | None") -> None:
    raise HookError(BAD_STATE, f"the state on stdin didn't end within {_DEADLINE} seconds")


def _header(arguments: "Sequence[str]") -> str | None:
    """The value of --header FILE, the only option."""
    if not arguments:
        return None
    if len(arguments) == 2 and arguments[0] == "--header" and arguments[1].startswith("/"):
        return arguments[1]
    raise HookError(
        USAGE,
        f"the hook's arguments are {quote(' '.join(arguments))}; "
        "it takes --header FILE, an absolute path, or nothing",
    )


def _grant(decoded: object, header: str | None) -> None:
    """Do what the `decoded` state asks for, or raise HookError with nothing done."""
    from .annotations import parse
    from .state import check, conmon_name, find_rootfs

    state = check(decoded)
    request = parse(state.annotations, lambda: conmon_name(state.id))
    if request is None:
        return
    from .container import Container
    from .mount import ContainerHalf

    with Container(state.pid) as container:
        rootfs = find_rootfs(state)
        _visible(request.path, rootfs.masked)
        with ContainerHalf(container, rootfs.path) as half:
            # While the half joins the container, where it touches nothing before it is told to.
            from . import kernel
            from .masks import needed, resolve

            enums = kernel.enums(needed(request), header=header)
            grant, dropped = resolve(request, enums, kernel.table)
            if grant.masks:
                mounted = half.mount(grant, enums)
                _record(state, grant, enums, dropped, mounted=mounted)


def _visible(target: str, masked: "Sequence[str]") -> None:
    """Refuse what the engine will cover: the container would find an empty directory."""
    from .errors import MOUNT_FAILED

    for path in masked:
        if f"{target}/".startswith(f"{path.rstrip('/')}/"):
            raise HookError(
                MOUNT_FAILED,
                f"the target directory {quote(target)} is masked by the engine (maskedPaths "
                f"has {quote(path)}); set io.bpffs.path elsewhere, or unmask it",
            )


def _record(
    state: "State",
    grant: "Grant",
    enums: "dict[str, Enum]",
    dropped: tuple[str, ...],
    *,
    mounted: bool,
) -> None:
    from .log import INFO, log
    from .masks import show

    words = [
        f"{option}={show(mask, enums[option]) if option in enums else 'any'}"
        for option, mask in grant.masks.items()
    ]
    done = "granted" if mounted else "already has"
    text = f"{state.id}: {done} {' '.join(words)} at {quote(grant.path)}"
    if dropped:
        text += f", dropped {' '.join(dropped)}"
    log(INFO, text)


def _bug(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"a bug of ours, please report it: {type(error).__name__}: {quote(str(error))}{where}"


def _report(identity: object, code: int, text: str) -> int:
    """Say on stderr and in the system's log why there is no container."""
    _signal.alarm(0)
    name = quote(identity)[1:-1] if isinstance(identity, str) else "?"
    try:
        posix.write(2, f"oci-bpf-hook: {name}: {text} (exit code {code})\n".encode())
    except OSError:  # crun has closed it, or the engine doesn't read.
        pass
    from .log import ERROR, log

    log(ERROR, f"{name}: {text} (exit code {code})")
    return code
