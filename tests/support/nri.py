"""An engine for the NRI plugin: it listens, calls, and says what real engines have said.

Sessions that tests/kubernetes/recorder.py has recorded with containerd are in tests/nri/sessions.
They are of the old dialect, in which most events are a StateChange.  No engine that speaks the new
one, of NRI 0.12, could be had for a recording: its calls are made here from the old ones, by the
numbers in NRI's api.proto.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from oci_bpf_hook.nri.wire import mux, ttrpc
from oci_bpf_hook.nri.wire.messages import PLUGIN_SERVICE
from oci_bpf_hook.nri.wire.protobuf import Message, encode
from oci_bpf_hook.nri.wire.ttrpc import Packet, Packets, Response
from oci_bpf_hook.paths import PODS
from tests.support.places import ROOT
from tests.support.processes import children, resident, wait_until_gone
from tests.support.scratch import Scratch, bpf_mounts, io

SESSIONS = sorted((ROOT / "tests" / "nri" / "sessions").glob("*.jsonl"))
LIMIT = 30
# The numbers of events in a StateChange.
EVENTS = {5: "PostCreateContainer", 6: "StartContainer", 10: "StopContainer", 11: "RemoveContainer"}


class Exchange(NamedTuple):
    """A call of the engine's, and what the plugin had answered when it was recorded."""

    method: str
    payload: bytes
    answer: Response


def packets(lines: Sequence[Mapping[str, str]], who: str) -> list[tuple[int, Packet]]:
    """What `who` says in a recording, each with its stream."""
    taken = mux.Demultiplexer()
    streams = {mux.PLUGIN: Packets(), mux.RUNTIME: Packets()}
    return [
        (stream, packet)
        for line in lines
        if line["who"] == who
        for stream, piece in taken.feed(bytes.fromhex(line["data"]))
        for packet in streams[stream].feed(piece)
    ]


def session(path: Path) -> list[Exchange]:
    """The calls in a recorded session, from Configure on."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    answers = {
        packet.call: ttrpc.read_response(packet.data or b"")
        for stream, packet in packets(lines, "plugin")
        if stream == mux.PLUGIN
    }
    found = []
    for stream, packet in packets(lines, "engine"):
        if stream == mux.PLUGIN:
            request = ttrpc.read_request(packet.data or b"")
            found.append(Exchange(request.method, request.payload, answers[packet.call]))
    return found


def of_new_dialect(exchange: Exchange) -> Exchange:
    """The same call as NRI 0.12 makes it."""
    message = Message(exchange.payload)
    if exchange.method == "Configure":
        more = encode({6: "v0.12.0"})
        return exchange._replace(payload=exchange.payload + more)
    if exchange.method != "StateChange":
        return exchange
    payload = encode({1: message.data(2), 2: message.data(3)})
    return exchange._replace(method=EVENTS[message.number(1)], payload=payload)


def pieces(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Each field of a message whose fields are numbers or bytes: its number, and all of it."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        start = at
        key = number()
        size = number()
        if key & 7 == 2:
            at += size
        yield key >> 3, message[start:at]


def changed(message: bytes, fields: Mapping[int, bytes]) -> bytes:
    """The message with these encoded `fields` instead of its own ones of the same numbers."""
    kept = b"".join(piece for number, piece in pieces(message) if number not in fields)
    return kept + b"".join(fields.values())


def field(number: int, value: bytes | list[bytes]) -> bytes:
    return encode({number: value})


def creation(
    payload: bytes,
    *,
    annotations: Mapping[str, str] | None = None,
    namespaces: Mapping[str, str] | None = None,
    pod: Mapping[int, bytes] = {},
    container: Mapping[int, bytes] = {},
) -> bytes:
    """The recorded request to create a container, with other `annotations`, `namespaces`, ..."""
    message = Message(payload)
    theirs, ours = dict(pod), dict(container)
    if annotations is not None:
        theirs[6] = encode({6: dict(annotations)})
    if namespaces is not None:
        listed = [encode({1: kind, 2: path}) for kind, path in namespaces.items()]
        ours[11] = field(11, encode({1: listed}))
    both = (changed(message.data(1), theirs), changed(message.data(2), ours))
    return encode({1: both[0], 2: both[1]})


def of_process(pid: int) -> dict[str, str]:
    """The namespaces of a pod whose first process is `pid`, as containerd names them."""
    names = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    paths = {kind: f"/proc/{pid}/ns/{name}" for kind, name in names.items()}
    return {**paths, "mount": "", "cgroup": ""}


class Session:
    """The engine's end of a connection, once a plugin has come."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        self.sock = sock
        sock.settimeout(LIMIT)
        self._size = size
        self._taken = mux.Demultiplexer()
        self._streams = {mux.PLUGIN: Packets(), mux.RUNTIME: Packets()}
        self._waiting: list[tuple[int, Packet]] = []
        self._last = -1

    def send(self, data: bytes) -> None:
        """Send the bytes in as many pieces as the engine is to send."""
        for at in range(0, len(data), self._size):
            self.sock.sendall(data[at : at + self._size])

    def next(self) -> tuple[int, Packet]:
        """What the plugin says next, with its stream."""
        while not self._waiting:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError
            for stream, piece in self._taken.feed(data):
                assert len(piece) <= mux.LONGEST
                self._waiting += [(stream, one) for one in self._streams[stream].feed(piece)]
        return self._waiting.pop(0)

    def ended(self) -> bool:
        """Whether the plugin ends the connection, and says nothing more."""
        try:
            return not self.sock.recv(1 << 16)
        except ConnectionResetError:
            return True

    def register(self) -> Message:
        """Take the plugin's registration."""
        stream, packet = self.next()
        request = ttrpc.read_request(packet.data or b"")
        assert (stream, packet.kind, request.method) == (mux.RUNTIME, 1, "RegisterPlugin")
        self.send(mux.frames(mux.RUNTIME, ttrpc.response(packet.call, b"")))
        return Message(request.payload)

    def begin(self, method: str, payload: bytes, *, service: str = PLUGIN_SERVICE) -> int:
        """Make a call, and don't wait for the answer; its number."""
        self._last += 2
        call = ttrpc.request(self._last, service, method, payload)
        self.send(mux.frames(mux.PLUGIN, call))
        return self._last

    def answer(self, number: int) -> Response:
        """The answer to the call with this number, which is the next that comes."""
        stream, packet = self.next()
        assert (stream, packet.kind, packet.call) == (mux.PLUGIN, ttrpc.RESPONSE, number)
        return ttrpc.read_response(packet.data or b"")

    def call(self, method: str, payload: bytes) -> Response:
        return self.answer(self.begin(method, payload))

    def start(self, *, timeout: int = 2000, containers: Sequence[bytes] = ()) -> None:
        """Register, configure and synchronize, as an engine does."""
        self.register()
        configure = encode({2: "containerd", 3: "2.1.9", 4: 5000, 5: timeout})
        answer = self.call("Configure", configure)
        assert Message(answer.payload).number(2) == 0x628
        assert self.call("Synchronize", encode({2: list(containers)})) == _EMPTY


_EMPTY = Response(code=0, message="", payload=b"")


class Plugin:
    """`oci-bpf-hook nri`, and an engine for it; to be used in a `with`."""

    def __init__(self, *options: str, prefix: Sequence[str] = (), size: int = 1 << 20) -> None:
        self._options = options
        self._prefix = prefix
        self._size = size
        self._accepted: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(dir="/tmp")
        self.path = f"{self._directory.name}/nri.sock"
        self.errors = Path(self._directory.name, "errors")
        self.listen()
        self.process = self.run()
        return self

    def listen(self) -> None:
        """Listen anew, as an engine does that was started again."""
        Path(self.path).unlink(missing_ok=True)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.path)
        self.server.listen()
        self.server.settimeout(LIMIT)

    def run(self) -> subprocess.Popen[bytes]:
        """Another process of the plugin."""
        command = [
            *("setpriv", "--pdeathsig=KILL", "--", *self._prefix),
            *(sys.executable, "-m", "oci_bpf_hook", "nri", "--socket", self.path, *self._options),
        ]
        environment = {"PATH": os.environ["PATH"]}
        with self.errors.open("ab") as errors:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors)

    def accept(self) -> Session:
        """The plugin's next connection."""
        sock, _ = self.server.accept()
        self._accepted.append(sock)
        return Session(sock, self._size)

    @contextmanager
    def session(self, *, timeout: int = 2000) -> Iterator[Session]:
        """A session that has begun."""
        begun = self.accept()
        with begun.sock:
            begun.start(timeout=timeout)
            yield begun

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.close()
        for sock in self._accepted:
            sock.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.process.wait()
            self._directory.cleanup()
        if error is None:
            assert code in (0, -signal.SIGKILL), code

    def children(self) -> list[int]:
        """Its processes."""
        return children(self.process.pid)

    def resident(self) -> int:
        """Its resident memory, in KiB."""
        return resident(self.process.pid)


def held() -> list[str]:
    """The containers for which there is a mount, or at least a directory."""
    return sorted(os.listdir(PODS)) if os.path.exists(PODS) else []


def nothing_left() -> bool:
    """Whether there is neither a directory nor a mount of the plugin's."""
    return not held() and not [line for line in bpf_mounts() if PODS in line]


def recorded(path: Path = SESSIONS[-1]) -> bytes:
    """The recorded request to create a container whose pod asks."""
    created = [one.payload for one in session(path) if one.method == "CreateContainer"]
    (asking,) = (one for one in created if b"io.bpffs.delegate_cmds" in one)
    return asking


ASK = io(delegate_cmds="map_create", delegate_maps="hash")


class Pod:
    """A pod's namespaces, and what an engine says of a container in it; to be used in a `with`."""

    def __init__(self, **scratch: Any) -> None:
        self._scratch = Scratch(mount=False, network=True, **scratch)
        self._number = 0

    def __enter__(self) -> Self:
        self._scratch.__enter__()
        self.pid = self._scratch.init.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.__exit__(None, None, None)

    def creation(
        self,
        annotations: Mapping[str, str] = ASK,
        *,
        identity: str = "",
        namespaces: Mapping[str, str] | None = None,
        pod: Mapping[int, bytes] = {},
        container: Mapping[int, bytes] = {},
    ) -> tuple[str, bytes]:
        """A container's id, and the request to create it."""
        self._number += 1
        identity = identity or f"{self.pid:x}-{self._number:060x}"
        return identity, creation(
            recorded(),
            annotations=annotations,
            namespaces=of_process(self.pid) if namespaces is None else namespaces,
            pod=pod,
            container={**container, 1: field(1, identity.encode())},
        )


def event(number: int, identity: str) -> bytes:
    """A StateChange about a container."""
    return encode({1: number, 3: encode({1: identity})})


def taken_away(plugin: Plugin, begun: "Session", identity: str) -> None:
    """Have the engine say that the container is removed, and wait until its mount is too."""
    assert begun.call("StateChange", event(11, identity)).code == 0
    wait_until_gone(plugin.children())
    assert identity not in held()


def mount_of(answer: Response) -> tuple[str, str, tuple[str, ...], dict[str, str]]:
    """The mount and the variables in the answer to CreateContainer."""
    adjust = Message(answer.payload).message(1)
    (mount,) = adjust.messages(3)
    assert mount.text(2) == "bind"
    return mount.text(1), mount.text(3), mount.texts(4), adjust.pairs(4)
