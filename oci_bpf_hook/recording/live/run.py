"""Makes one recording of a command, from the policy's decision to the program's end."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from ...bpf.names import Enum
from ...container.namespaces import Container, is_initial
from ...delegation.masks import Grant
from ...errors import NO_BROKER, HookError
from ...pipeline.case import Case
from ...pipeline.outcomes import refused
from ...policy.decide import Decision, everything
from ...policy.store import cache
from ...policy.subjects import of_recording
from ...users import groups_of
from ...values import Value
from ..recording import Recording
from .sandbox import Sandbox
from .supervisor import Supervisor

# A terminal sends these to us and to the program alike, which is in our process group; but there
# may be no terminal.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_FORWARDED = (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Settings(Value):
    """Where the bpffs is mounted, and whether the program has its own network, and no output."""

    __slots__ = ("path", "private_network", "silent")
    path: str
    private_network: bool
    silent: bool


def record(
    command: Sequence[str],
    settings: Settings,
    enums: Mapping[str, Enum],
    *,
    masks: Mapping[str, int] | None = None,
) -> Recording:
    """Run `command` and record it, with all that the policy allows, or with `masks` of that.

    Raises HookError if the program wasn't run.
    """
    if os.geteuid() != 0 or not is_initial():
        raise HookError(
            NO_BROKER, "delegating takes CAP_SYS_ADMIN in the initial user namespace; use sudo"
        )
    # 4. policy: the steps have the numbers of hook.main, and 1 to 3 are the command line's.
    policy = cache.in_force()
    sandbox = Sandbox(command, private_network=settings.private_network, silent=settings.silent)
    with sandbox:
        case = Case(f"record {sandbox.pid}", {}, lambda: policy)
        try:
            decision = _judge(case, sandbox.pid, settings.path, masks)
        except HookError as error:
            refused(case, error)
            raise
        # 10. record, before the program is there at all
        case.granted()
        # 8. halves and 9. read-back
        sandbox.delegate(decision.grant, enums, case.guard)
        case.say(mounted=True)
        recording = Recording(command, granted=decision.grant.masks)
        supervisor = Supervisor(recording.add)
        # From its first moment on the program may get signals, which we pass on.
        with handing_on(sandbox.pidfd):
            supervisor.add(sandbox.start())
            supervisor.serve(sandbox.pidfd)
        recording.exit = os.waitstatus_to_exitcode(sandbox.wait())
        _leave(supervisor)
        recording.end()
        recording.blind = supervisor.blind
    return recording


def invoker() -> int:
    """The user for whom this runs: the one who called sudo(8), otherwise our own."""
    text = os.environ.get("SUDO_UID", "")
    return int(text) if text.isascii() and text.isdecimal() else os.getuid()


def _judge(case: Case, pid: int, path: str, masks: Mapping[str, int] | None) -> Decision:
    """All that the policy allows the sandbox of `pid` and its user, or `masks` of that."""
    user = invoker()
    # 6. subject
    with Container(pid) as container:
        case.subject = who = of_recording(user, groups_of(user), container)
    # 5. masks, which are what is given, and 7. grant
    case.settle(lambda: _within(everything(case.policy(), who, path), masks))
    return case.prepare()


def _within(decision: Decision, masks: Mapping[str, int] | None) -> Decision:
    """The `decision`, less what isn't among `masks`."""
    if masks is None:
        return decision
    grant = decision.grant
    both = {option: mask & masks.get(option, 0) for option, mask in grant.masks.items()}
    less = {option: mask for option, mask in both.items() if mask}
    return Decision(
        rule=decision.rule,
        match=decision.match,
        grant=Grant(masks=less, path=grant.path, mode=grant.mode),
        confined=decision.confined,
        trimmed=(),
    )


@contextmanager
def handing_on(pidfd: int) -> Iterator[None]:
    """Pass signals on to the process of `pidfd`, and survive those that it gets as well."""

    def forward(number: int, frame: FrameType | None) -> None:
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:  # It has ended.
            pass

    def outlive(number: int, frame: FrameType | None) -> None:
        if not _in_the_foreground():
            forward(number, frame)

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        **dict.fromkeys(_FORWARDED, forward),
        **dict.fromkeys(_FROM_TERMINAL, outlive),
    }
    # The program also ignores what was ignored before us, for example by nohup(1).
    ignored = {number for number in handlers if signal.getsignal(number) == signal.SIG_IGN}
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number not in ignored
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_the_foreground() -> bool:
    """Whether a signal may come from our terminal, which then also sends it to the program."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # It has been hung up.
        return False
    finally:
        os.close(fd)


def _leave(supervisor: Supervisor) -> None:
    """Let the program's children that outlive it go on: somebody has to answer their calls."""
    if not supervisor.idle() and os.fork() == 0:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.chdir("/")
            # All our other fds are closed: one may be the end of a pipe that somebody reads.
            first = 3
            for fd in supervisor.look_away():
                os.closerange(first, fd)
                first = fd + 1
            os.closerange(first, 1 << 16)
            supervisor.serve()
        finally:
            os._exit(0)
    supervisor.close()
