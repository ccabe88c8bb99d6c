"""What a process does that serves one request and ends with it, for a service that goes on.

The broker and the NRI plugin serve each request in such a process.  The reasons that only the
administrator may know go to the host's log, and whoever asked is told less.
"""

import gc
import os
import signal

from ..errors import BAD_POLICY, BUG, REFUSED, HookError, quote
from ..kernel.syscalls import PR_SET_PDEATHSIG, prctl
from ..policy.compiled import Compiled
from ..syslog import ERROR, log
from .case import Case

# What is told instead of the reason.
_PRIVATE = {
    BAD_POLICY: "the administrator's policy has an error, and so nothing is delegated; the host's "
    "log says what is wrong",
}
_FDS = 1 << 16


def settle(parent: int, seconds: int, *keep: int) -> None:
    """Keep only the fds `keep` and the standard streams; end with the `parent`, or after `seconds`.

    The `parent` is the pid of the service.
    """
    # This process is over before there is much garbage, and collecting it would copy the pages that
    # it shares with the service.
    gc.disable()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(seconds)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    first = 3
    for fd in sorted(keep):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _FDS)


def in_order(policy: Compiled | HookError) -> Compiled:
    """The `policy`; raises the error in it, if that is what the service has found."""
    if isinstance(policy, HookError):
        raise policy
    return policy


def record(who: str, case: Case) -> None:
    """Record the prepared grant.  Raises HookError (REFUSED) without the reason, which is logged.

    `who` is the service.
    """
    try:
        case.granted()
    except HookError as error:
        log(ERROR, f"{who}: {error}")
        raise HookError(
            REFUSED,
            "this grant can't be recorded, which the policy requires; the host's log says why",
        ) from None


def told(error: HookError) -> tuple[str, ...]:
    """The sentences of an `error` that whoever asked may read."""
    private = _PRIVATE.get(error.code)
    return error.sentences if private is None else (private,)


def a_bug(who: str, error: Exception) -> HookError:
    """The error to report if `error` was never meant to be raised; a traceback is of no use here.

    It goes to the host's log; `who` is the service.
    """
    log(ERROR, f"{who}: a bug of ours: {type(error).__name__}: {quote(str(error))}")
    return HookError(BUG, f"the {who} has a bug; the host's log says where")
