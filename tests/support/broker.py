"""A broker that runs, and peers of it that say whatever a test wants.

A peer is a process in a container's namespaces, or a user's; it speaks the protocol byte by byte
as it is told to, since the broker knows whoever is at the other end by the kernel's word.
"""

import base64
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

from oci_bpf_hook.broker.wire import VERSION
from oci_bpf_hook.paths import SOCKET
from tests.support.places import ROOT
from tests.support.processes import children, resident, wait_until_gone

# Seconds; nothing here waits for longer than the broker's own deadlines.
LIMIT = 30
# The command, to whose broker a connection may be silent for as long as a test takes.
_PATIENT = (
    "import sys; from oci_bpf_hook.broker import waiting; waiting.SILENCE = 3600; "
    "from oci_bpf_hook.cli.main import main; sys.exit(main())"
)


class Broker:
    """`oci-bpf-hook broker`, ready; to be used in a `with`.

    With `passed` its socket is made and handed over as systemd does.  A `patient` one drops no
    connection for its silence, however slow the machine is.
    """

    def __init__(
        self,
        *options: str,
        path: str = SOCKET,
        passed: bool = False,
        patient: bool = False,
        prefix: Sequence[str] = (),
        rate: str = "0",
    ) -> None:
        self.path = path
        self._passed = passed
        self._command = [
            # Whatever ends the test ends it, too.
            *("setpriv", "--pdeathsig=KILL", "--"),
            *prefix,
            *(sys.executable, *(("-c", _PATIENT) if patient else ("-m", "oci_bpf_hook")), "broker"),
            *(() if passed else ("--socket", path)),
            *("--rate", rate, *options),
        ]

    def __enter__(self) -> Self:
        with (
            tempfile.TemporaryDirectory(dir="/tmp") as directory,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
        ):
            ready.bind(f"{directory}/notify")
            self.process = self._start({"NOTIFY_SOCKET": f"{directory}/notify"})
            pidfd = os.pidfd_open(self.process.pid)
            try:
                said, _, _ = select.select([ready.fileno(), pidfd], [], [], LIMIT)
                assert ready.fileno() in said, "the broker didn't start"
                assert ready.recv(100) == b"READY=1"
            finally:
                os.close(pidfd)
        return self

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], **environment}
        if not self._passed:
            return subprocess.Popen(self._command, cwd=ROOT, env=environment)
        Path(self.path).parent.mkdir(mode=0o755, exist_ok=True)
        Path(self.path).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.bind(self.path)
            os.chmod(self.path, 0o666)
            sock.listen()
            # The pid of whoever is started stands in its environment.
            exec_it = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 0</dev/null'
            command = ["sh", "-c", exec_it, "sh", *self._command]
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=sock.fileno())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(LIMIT)
        finally:
            self.process.kill()
        if error is None:
            assert code in (0, -signal.SIGKILL), code

    def kill(self) -> None:
        """End it as nobody expects."""
        self.process.kill()
        self.process.wait(LIMIT)

    def resident(self) -> int:
        """Its resident memory, in KiB."""
        return resident(self.process.pid)

    def heard(self) -> None:
        """Have it refuse a request, and so come round once."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(self.path)
            assert sock.recv(1 << 16)
            # It has closed its end by then.
            assert sock.recv(1 << 16) == b""

    def fds(self) -> int:
        """How many file descriptors it has open."""
        self.heard()
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def children(self) -> list[int]:
        """Its processes."""
        return children(self.process.pid)

    def quiet(self, fds: int) -> None:
        """Wait until no process and no connection is left, and so many `fds`."""
        until = monotonic() + LIMIT
        while monotonic() < until:
            processes = self.children()
            wait_until_gone(processes)
            # It has to notice as well, and to come to those that wait for their turn.
            if self.fds() == fds and not processes:
                return
        raise AssertionError(f"{self.fds()} fds are open, not {fds}")


_PEER = """
import array, base64, json, os, socket, sys, time
path = sys.argv[1]
socks = []
def connect():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # With a timeout it would get EAGAIN where the kernel keeps no more, and not wait.
    sock.connect(path)
    sock.settimeout(30)
    socks.append(sock)
def do(what, number=-1, data="", fds=0, count=1, argv=(), flags=0):
    sock = socks[number] if socks else None
    if what == "connect":
        for _ in range(count):
            connect()
    elif what == "send":
        ends = [os.pipe() for _ in range(fds)]
        writes = array.array("i", [write for _, write in ends])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, writes)] if fds else []
        sock.sendmsg([base64.b64decode(data)], ancillary)
        for _, write in ends:
            os.close(write)
        # Each reads its end once nobody holds the other any more.
        return {"closed": [os.read(read, 1) == b"" for read, _ in ends]}
    elif what == "recv":
        try:
            data, ancillary, _, _ = sock.recvmsg(1 << 17, 1 << 10)
        except ConnectionResetError:  # Told once, before what there is to read.
            data, ancillary, _, _ = sock.recvmsg(1 << 17, 1 << 10)
        fds = [fd for _, _, held in ancillary for fd in array.array("i", held)]
        found = []
        for fd in fds:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
            os.close(fd)
        return {"data": base64.b64encode(data).decode(), "fds": found}
    elif what == "close":
        sock.close()
    elif what == "unshare":
        import ctypes
        if ctypes.CDLL(None, use_errno=True).unshare(flags):
            raise OSError(ctypes.get_errno(), "unshare")
    elif what == "at once":
        ask, go = (base64.b64decode(one) for one in argv)
        began = time.perf_counter()
        for _ in range(count):
            connect()
            socks[-1].send(ask)
        for message in (go, b""):
            for sock in socks:
                _, ancillary, _, _ = sock.recvmsg(1 << 17, 1 << 10)
                flags += len(ancillary)
                for _, _, held in ancillary:
                    for fd in array.array("i", held):
                        os.close(fd)
                if message:
                    sock.send(message)
        ended = time.perf_counter()
        while socks:
            socks.pop().close()
        return {"mounts": flags, "ms": (ended - began) * 1e3}
    elif what == "many":
        # Of every four requests two are granted, one isn't taken, and one is refused.
        good, bad, go = (base64.b64decode(one) for one in argv)
        for turn in range(count):
            connect()
            sock = socks.pop()
            sock.send(bad if turn % 4 == 3 else good)
            if turn % 4 != 2:
                sock.recv(1 << 17)
            if turn % 4 < 2:
                sock.send(go)
                _, ancillary, _, _ = sock.recvmsg(1 << 17, 1 << 10)
                for _, _, held in ancillary:
                    for fd in array.array("i", held):
                        os.close(fd)
                        flags += 1
            sock.close()
        return {"mounts": flags}
    elif what == "exec":
        for one in socks:
            one.set_inheritable(True)
        os.execv(argv[0], argv)
    return {}
print(json.dumps({"pid": os.getpid()}), flush=True)
for line in sys.stdin:
    try:
        answer = do(**json.loads(line))
    except OSError as error:
        answer = {"error": error.errno, "text": str(error)}
    print(json.dumps(answer), flush=True)
"""

# With an own user and mount namespace, as whoever runs it.
ALONE = ("unshare", "--user", "--map-root-user", "--mount", "--")


class Peer:
    """A process that `prefix` puts where it is to be; to be used in a `with`."""

    def __init__(self, prefix: Sequence[str], path: str = SOCKET) -> None:
        self._command = [*prefix, "/usr/bin/python3", "-IS", "-c", _PEER, path]

    def __enter__(self) -> "Peer":
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        self._hear()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def do(self, what: str, **arguments: object) -> dict[str, Any]:
        """Have it do that; its answer."""
        self.tell(what, **arguments)
        return self._hear()

    def tell(self, what: str, **arguments: object) -> None:
        """Have it do that, and don't wait."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        self.process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def send(self, message: object, *, number: int = -1, fds: int = 0) -> dict[str, Any]:
        """Send a message on the last connection, or the `number`-th."""
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        return self.do("send", number=number, fds=fds, data=base64.b64encode(data).decode())

    def receive(self, *, number: int = -1) -> tuple[dict[str, Any], list[Any]]:
        """The next answer, {} at the end, and what fds came along."""
        answer = self.do("recv", number=number)
        assert "error" not in answer, answer
        data = base64.b64decode(answer["data"])
        return json.loads(data) if data else {}, answer["fds"]

    def ask(
        self, annotations: dict[str, str], *, identity: str = "x", **claims: str
    ) -> dict[str, Any]:
        """Connect and ask; the broker's answer."""
        assert self.do("connect") == {}
        self.send(request(annotations, identity=identity, **claims))
        answer, _ = self.receive()
        return answer

    def at_once(self, count: int, annotations: dict[str, str]) -> float:
        """Make so many requests at once; the milliseconds until the last mount has come."""
        words = [request(annotations), GO_ON]
        argv = [base64.b64encode(json.dumps(word).encode()).decode() for word in words]
        answer = self.do("at once", count=count, argv=argv)
        assert answer.get("mounts") == count, answer
        return float(answer["ms"])

    def begin_many(self, count: int, annotations: dict[str, str]) -> None:
        """Have it make so many requests, one after the other."""
        words = [request(annotations), request({}), GO_ON]
        argv = [base64.b64encode(json.dumps(word).encode()).decode() for word in words]
        self.tell("many", count=count, argv=argv)

    def end_many(self) -> int:
        """Wait until it has; how many mounts came of them."""
        mounts = self._hear()["mounts"]
        assert isinstance(mounts, int)
        return mounts

    def mount(self) -> tuple[dict[str, Any], list[Any]]:
        """Go on after `ask`: the broker's answer, and what came along."""
        self.send(GO_ON)
        return self.receive()


GO_ON = {"version": VERSION, "mount": True}


def request(
    annotations: dict[str, str], *, identity: str = "x", **claims: str
) -> dict[str, object]:
    """The first message."""
    return {"version": VERSION, "id": identity, "annotations": annotations, "claims": claims}
