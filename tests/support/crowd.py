"""Many that connect to a broker and say nothing, as whoever and as fast as a test wants."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType

from oci_bpf_hook.paths import SOCKET
from tests.support.places import ROOT

from .broker import LIMIT, Broker

_FILLS = """
import os, resource, socket, sys
path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
socks = []
turn = 0
for line in sys.stdin:
    while socks:
        socks.pop().close()
    filled = 0
    while filled < int(line):
        if first:
            os.seteuid(0)
            os.seteuid(first + turn % count)
            turn += 1
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            break
        socks.append(sock)
        filled += 1
    print(filled, flush=True)
"""

_CONNECTS = """
import os, socket, sys
path, processes = sys.argv[1], int(sys.argv[2])
for _ in range(processes):
    if os.fork() == 0:
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                try:
                    sock.connect(path)
                except OSError:
                    os._exit(0)
print("all", flush=True)
sys.stdin.read()
os.killpg(0, 9)
"""

_STEPS = """
import sys
from oci_bpf_hook.broker import service as broker
from oci_bpf_hook.cli import main as cli
turn = broker.Broker.turn
def step(self):
    if sys.stdin.readline():
        self._patience = lambda: 0
        turn(self)
        print(len(self._workers), flush=True)
    else:
        del self._patience
        self._stop()
        broker.Broker.turn = turn
broker.Broker.turn = step
sys.exit(cli.main(sys.argv[1:]))
"""


class Fillers:
    """A process that `prefix` puts where it is to be, to be used in a `with`.

    With `uids`, a first one and how many, it connects by one of these after the other, as root can.
    """

    def __init__(self, prefix: Sequence[str] = (), *, uids: tuple[int, int] = (0, 0)) -> None:
        ids = [str(number) for number in uids]
        self._command = [*prefix, "/usr/bin/python3", "-IS", "-c", _FILLS, SOCKET, *ids]

    def __enter__(self) -> "Fillers":
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def fill(self, most: int = 20_000) -> int:
        """Close what it has, and connect as often as the kernel takes it; how often that was."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{most}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Crowd:
    """So many processes, which `prefix` puts where they are to be, that connect all the time.

    To be used in a `with`.
    """

    def __init__(self, processes: int, prefix: Sequence[str], path: str = SOCKET) -> None:
        arguments = ["/usr/bin/python3", "-IS", "-c", _CONNECTS, path, str(processes)]
        self._command = [*prefix, *arguments]

    def __enter__(self) -> "Crowd":
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            start_new_session=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "all\n"
        return self

    def pause(self) -> None:
        """Have all of them stop where they are."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Have all of them go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.go_on()
        self._process.communicate()
        assert self._process.returncode == -signal.SIGKILL


class Stepped(Broker):
    """A broker that goes round only when it is told to."""

    def __init__(self, *, rate: str = "0", prefix: Sequence[str] = ()) -> None:
        super().__init__(rate=rate, prefix=prefix)
        after = self._command.index("broker")
        self._command[after - 3 : after] = [sys.executable, "-c", _STEPS]

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        self._pipe = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self._pipe

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._pipe.stdin
        assert self._pipe.stdout
        self._pipe.stdin.close()
        self._pipe.wait(LIMIT)
        self._pipe.stdout.close()
        super().__exit__(kind, error, trace)

    def turn(self) -> int:
        """Have it go round once; how many requests it serves after that."""
        assert self._pipe.stdin
        assert self._pipe.stdout
        self._pipe.stdin.write(b"\n")
        self._pipe.stdin.flush()
        assert select.select([self._pipe.stdout], [], [], LIMIT)[0]
        return int(self._pipe.stdout.readline())
