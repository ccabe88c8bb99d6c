# The C module behind signal, which the hot path uses: signal itself brings enum.
from collections.abc import Callable, Iterable
from types import FrameType

SIGKILL: int
SIGALRM: int
SIGCHLD: int
SIGHUP: int
SIGINT: int
SIGQUIT: int
SIGTERM: int
SIG_DFL: int
SIG_IGN: int
SIG_SETMASK: int

def signal(
    signalnum: int, handler: Callable[[int, FrameType | None], object] | int | None, /
) -> object: ...
def alarm(seconds: int, /) -> int: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
