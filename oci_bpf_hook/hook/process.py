"""What the hook and precreate share: a process without inherited state, their input and reports.

A runtime starts the hook, and podman starts precreate, in a process that has inherited its blocked
signals, open files and directory.
"""

import _signal
import posix

from ..errors import BAD_STATE, USAGE, HookError, quote
from ..oci.state import read_stdin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from ..delegation.annotations import Request
    from ..oci.state import Rootfs, State

# Seconds within which the runtime has to hand over the state.
_DEADLINE = 4
_OPTIONS = ("--header", "--engine", "--profile", "--path", "--shim")


def settle() -> str:
    """Undo what the process has inherited from whoever started it; returns the directory it was in.

    Afterwards no signal is blocked, only the standard streams are open, and the directory is "/".
    """
    # crun runs hooks with all signals blocked, and a process inherits that.
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    # If SIGCHLD were ignored, the kernel would reap the container half, and another process might
    # get its pid.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    # fds with higher numbers stay open: if libc or the kernel has no close_range(), each number
    # costs a system call.
    posix.closerange(3, 1 << 16)
    # If the runtime has closed a standard stream, no file that is opened later may take its number.
    while posix.open("/", posix.O_PATH | posix.O_CLOEXEC) < 3:
        pass
    posix.closerange(3, 4)
    try:
        cwd = posix.getcwd()
    except OSError:  # It has been removed.
        cwd = "/"
    posix.chdir("/")
    posix.umask(0o077)
    return cwd


def read_in_time(what: str, longest: int) -> bytes:
    """All of standard input, which is the `what` in messages.

    Raises HookError (BAD_STATE) if it has more than `longest` bytes, or doesn't end in time.
    """

    def too_late(number: int, frame: "FrameType | None") -> None:
        raise HookError(BAD_STATE, f"the {what} on stdin didn't end within {_DEADLINE} seconds")

    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(_DEADLINE)
    data = read_stdin(what, longest)
    _signal.alarm(0)
    return data


def options_of(arguments: "Sequence[str]") -> dict[str, str]:
    """The command line's options, without their "--", with their values.

    Raises HookError (USAGE) for a wrong command line.
    """
    options: dict[str, str] = {}
    rest = list(arguments)
    while len(rest) >= 2 and rest[0] in _OPTIONS:
        options[rest[0][2:]] = rest[1]
        del rest[:2]
    relative = not options.get("header", "/").startswith("/")
    device = {"path", "shim"} & options.keys()
    if rest or relative or (device and "profile" not in options):
        raise HookError(
            USAGE,
            f"the hook can't be run with the arguments {quote(' '.join(arguments))}; it takes "
            "--header FILE (an absolute path), --engine NAME, and in a CDI device --profile NAME, "
            "--path DIR and --shim true",
        )
    return options


def caller() -> tuple[int, int]:
    """Our real uid, which is the user's even if a set-user-id program started us, and our gid."""
    return posix.getuid(), posix.getegid()


def request_of(
    state: "State", options: "Mapping[str, str]", name: "Callable[[], str | None]"
) -> "Request | None":
    """What is asked for, by the `options` of a CDI device or else by the annotations of `state`.

    If a device asks, annotations add nothing to what the administrator has written for it.  `name`
    finds the container's name.  Returns None if nothing is asked for; raises HookError with all
    that is wrong.
    """
    from ..delegation.annotations import device, parse

    if "profile" in options:
        return device(options["profile"], options.get("path"), options.get("shim"))
    return parse(state.annotations, name)


def podmans_name(state: "State") -> str | None:
    """The name that podman gave the container, or None if it isn't podman's."""
    from ..container.podman import container_name

    return container_name(state.id)


def by_user(
    state: "State",
    request: "Request",
    rootfs: "Rootfs",
    engine: str | None,
    name: "Callable[[], str | None]",
    *,
    rootless: bool = False,
) -> "Mapping[str, str]":
    """The annotations of `state` without those that podman copied from the image.

    `engine` is the one that runs the hook, or None if that isn't known; the rest is as for
    `images.asked_by_user`.  Raises HookError (REFUSED) if the image's annotations make a difference
    to the `request`.
    """
    bundle = state.bundle
    # podman's bundles are in its storage; crun may say "/" instead (`state.find_rootfs`).
    if engine not in (None, "podman") or (bundle != "/" and not bundle.endswith("/userdata")):
        return state.annotations
    from ..container.images import asked_by_user, copies

    if not copies(rootfs.version):
        return state.annotations
    place = rootfs.path if bundle == "/" else bundle
    return asked_by_user(request, state.annotations, state.id, place, name, rootless=rootless)


def report(identity: object, code: int, text: str) -> int:
    """Say on stderr and in the system's log why the container doesn't start; returns `code`.

    `identity` is the container's id as the runtime gave it, and `text` the sentence to print.
    """

    def too_late(number: int, frame: "FrameType | None") -> None:
        raise TimeoutError

    # Writing to a full pipe or a stopped terminal would wait for the reader, perhaps forever.
    _signal.signal(_signal.SIGALRM, too_late)
    _signal.alarm(1)
    name = quote(identity)[1:-1] if isinstance(identity, str) else "?"
    try:
        line = f"oci-bpf-hook: {name}: {text} (exit code {code})\n"
        posix.write(2, line.encode("utf-8", "backslashreplace"))
        # If the alarm has already come, TimeoutError is raised here at the latest.
        _signal.signal(_signal.SIGALRM, _signal.SIG_IGN)
    except OSError:  # crun has closed it, or the engine doesn't read.
        pass
    _signal.alarm(0)
    from ..syslog import ERROR, log

    log(ERROR, f"{name}: {text} (exit code {code})")
    return code
