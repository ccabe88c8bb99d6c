"""How the plugin lives: it registers, is alone, comes back, and takes whatever it is sent."""

import os
import random
import signal
import socket
import struct
import subprocess
import sys

import pytest

from oci_bpf_hook.nri.wire import mux, ttrpc
from oci_bpf_hook.nri.wire.protobuf import Message, encode
from oci_bpf_hook.nri.wire.ttrpc import Response
from oci_bpf_hook.paths import PODS
from tests.support.command import command
from tests.support.nri import (
    ASK,
    LIMIT,
    Plugin,
    Pod,
    Session,
    changed,
    event,
    field,
    held,
    mount_of,
    nothing_left,
    taken_away,
)
from tests.support.places import ROOT
from tests.support.processes import wait_until_gone
from tests.support.scratch import io


def create(begun: Session, pod: Pod) -> str:
    """The id of a container that has got its mount."""
    identity, request = pod.creation()
    assert mount_of(begun.call("CreateContainer", request))[1] == f"{PODS}/{identity}/bpf"
    return identity


def said(plugin: Plugin) -> list[str]:
    return plugin.errors.read_text().splitlines()


# ---- beginning and end -----------------------------------------------------------------


def test_name_and_index() -> None:
    with Plugin("--name", "other", "--idx", "07") as plugin:
        begun = plugin.accept()
        registration = begun.register()
        assert [registration.text(number) for number in (1, 2)] == ["other", "07"]


@pytest.mark.parametrize("index", ["7", "007", "ab", "", "\u0660\u0661"])
def test_an_index_that_is_none(index: str) -> None:
    done = command("nri", "--idx", index)
    assert done.returncode == 2
    assert "isn't two digits" in done.stderr


def test_only_as_root_of_the_host() -> None:
    alone = ("unshare", "--user", "--map-root-user", "--")
    program = (*alone, sys.executable, "-m", "oci_bpf_hook", "nri")
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 15
    assert "initial user namespace" in done.stderr


def test_configured_before_it_is_registered() -> None:
    """Some engines configure it first."""
    with Plugin() as plugin:
        begun = plugin.accept()
        _, packet = begun.next()
        answer = begun.call("Configure", encode({2: "cri-o"}))
        assert Message(answer.payload).number(2) == 0x628
        begun.send(mux.frames(mux.RUNTIME, ttrpc.response(packet.call, b"")))
        assert begun.call("Synchronize", b"").code == 0


def test_the_engine_does_not_want_it() -> None:
    with Plugin() as plugin:
        begun = plugin.accept()
        _, packet = begun.next()
        begun.send(mux.frames(mux.RUNTIME, ttrpc.failure(packet.call, "no such plugin here")))
        assert begun.ended()
        with plugin.session() as again:
            assert again.call("Shutdown", b"").code == 0
        assert any("no such plugin here" in line for line in said(plugin))


def test_an_engine_that_is_started_again(pod: Pod) -> None:
    with Plugin() as plugin:
        for _ in range(3):
            with plugin.session() as begun:
                taken_away(plugin, begun, create(begun, pod))
            plugin.server.close()
            plugin.listen()


def test_an_engine_that_is_started_later() -> None:
    with Plugin() as plugin:
        plugin.accept().sock.close()
        plugin.server.close()
        os.unlink(plugin.path)
        while not any("no engine answers" in line for line in said(plugin)):
            assert plugin.process.poll() is None
        plugin.listen()
        with plugin.session():
            pass


def test_one_after_the_other(pod: Pod) -> None:
    with Plugin() as plugin:
        first = plugin.accept()
        first.start()
        second = plugin.run()
        try:
            # It finds out who listens, and then that there is another.
            assert plugin.accept().ended()
            taken_away(plugin, first, create(first, pod))
            plugin.process.kill()
            plugin.process.wait()
            first.sock.close()
            while True:
                begun = plugin.accept()
                with begun.sock:
                    if begun.sock.recv(1, socket.MSG_PEEK):
                        begun.start()
                        plugin.process = second
                        taken_away(plugin, begun, create(begun, pod))
                        break
        finally:
            second.terminate()
            assert second.wait(LIMIT) == 0


def test_started_by_the_engine(pod: Pod) -> None:
    ours, theirs = socket.socketpair()
    environment = {"NRI_PLUGIN_SOCKET": "3", "NRI_PLUGIN_NAME": "launched"}
    environment |= {"NRI_PLUGIN_IDX": "33", "PATH": os.environ["PATH"]}
    with ours:
        with theirs:
            launch = ["sh", "-c", 'exec "$@" 3<&0 0</dev/null', "sh"]
            arguments = [*launch, sys.executable, "-m", "oci_bpf_hook", "nri"]
            process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdin=theirs.fileno())
        try:
            begun = Session(ours, 1 << 20)
            registration = begun.register()
            assert [registration.text(number) for number in (1, 2)] == ["launched", "33"]
            assert begun.call("Configure", encode({2: "containerd"})).code == 0
            assert begun.call("Synchronize", b"").code == 0
            identity = create(begun, pod)
            # What is left is the next plugin's.
            ours.shutdown(socket.SHUT_RDWR)
            assert process.wait(LIMIT) == 0
        finally:
            process.kill()
            process.wait()
    assert held() == [identity]
    with Plugin() as plugin, plugin.session():
        wait_until_gone(plugin.children())


def test_half_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NRI_PLUGIN_SOCKET", "3")
    done = command("nri")
    assert done.returncode == 15
    assert "NRI_PLUGIN_NAME" in done.stderr


def test_it_finishes_what_it_has_begun(pod: Pod) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        number = begun.begin("CreateContainer", request)
        plugin.process.send_signal(signal.SIGTERM)
        # Either it was quicker than the signal, or it never saw the request.
        try:
            given = bool(begun.answer(number).payload)
        except (EOFError, ConnectionResetError):
            given = False
        assert plugin.process.wait(LIMIT) == 0
        assert held() == ([identity] if given else [])
    with Plugin() as plugin, plugin.session():
        wait_until_gone(plugin.children())


# ---- synchronizing ---------------------------------------------------------------------


def container(identity: str, state: int) -> bytes:
    return encode({1: identity, 4: state, 6: {"key": "x" * 200}})


def test_five_hundred_containers_in_parts(pod: Pod) -> None:
    """Of the mounts of before those stay whose containers aren't started yet."""
    with Plugin() as plugin:
        with plugin.session() as begun:
            created, running, gone = (create(begun, pod) for _ in range(3))
        again = plugin.accept()
        with again.sock:
            again.register()
            assert again.call("Configure", encode({2: "containerd"})).code == 0
            containers = [container(f"other-{number}", 3) for number in range(498)]
            containers.insert(3, container(created, 1))
            containers.insert(400, container(running, 3))
            for at in range(0, 500, 50):
                more = at < 450
                part = encode({2: containers[at : at + 50], 3: int(more)})
                answer = again.call("Synchronize", part)
                assert (answer.code, Message(answer.payload).number(2)) == (0, int(more))
                assert not Message(answer.payload).messages(1)
            wait_until_gone(plugin.children())
            assert held() == [created]
            assert again.call("StartContainer", encode({2: encode({1: created})})).code == 0
            wait_until_gone(plugin.children())
    assert nothing_left()
    assert gone


def test_what_is_made_after_it_stays(pod: Pod) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        identity = create(begun, pod)
        wait_until_gone(plugin.children())
        assert held() == [identity]
        taken_away(plugin, begun, identity)


@pytest.mark.parametrize("number", [6, 10, 11])
def test_what_ends_the_mount(pod: Pod, number: int) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        identity = create(begun, pod)
        assert begun.call("StateChange", event(number, "another")).code == 0
        assert begun.call("StateChange", event(5, identity)).code == 0
        assert held() == [identity]
        assert begun.call("StateChange", event(number, identity)).code == 0
        wait_until_gone(plugin.children())
        assert nothing_left()


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_one_that_was_created_without_it(pod: Pod, new: bool) -> None:
    """containerd doesn't start it then; CRI-O only logs what is said."""

    def start(request: bytes, mount: bytes = b"") -> Response:
        message = Message(request)
        parts = (message.data(1), changed(message.data(2), {9: mount}))
        if new:
            return begun.call("StartContainer", encode({1: parts[0], 2: parts[1]}))
        return begun.call("StateChange", encode({1: 6, 2: parts[0], 3: parts[1]}))

    with Plugin() as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        answer = start(request)
        assert (answer.code, "created again (exit code 16)" in answer.message) == (2, True)
        source = f"{PODS}/{identity}/bpf"
        mount = field(9, encode({1: "/sys/fs/bpf", 2: "bind", 3: source}))
        assert start(request, mount).code == 0
        for asks in (
            *({}, {f"{key}/other": text for key, text in ASK.items()}),
            {**ASK, **io(on_unknown="drop")},
        ):
            _, request = pod.creation(asks)
            assert start(request).code == 0


# ---- what it is sent -------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["UpdateContainer", "ValidateContainerAdjustment", "RunPodSandbox", "", "No such"]
)
def test_a_method_that_it_does_not_have(method: str) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        assert begun.call(method, b"").code == ttrpc.UNIMPLEMENTED
        number = begun.begin("CreateContainer", b"", service="another.Service")
        assert begun.answer(number).code == ttrpc.UNIMPLEMENTED
        assert begun.call("Shutdown", b"").code == 0


def test_what_it_passes_over() -> None:
    answer, request = ttrpc.response(9, b"x"), ttrpc.request(9, "s", "m", b"")
    data = struct.pack(">IIBB", 3, 9, 3, 0) + b"abc"
    with Plugin() as plugin, plugin.session() as begun:
        for stream, message in [
            *((0, request), (3, request), (1 << 31, request), (mux.PLUGIN, answer)),
            *((mux.RUNTIME, request), (mux.RUNTIME, answer), (mux.PLUGIN, data)),
        ]:
            begun.send(mux.frames(stream, message))
        assert begun.call("Shutdown", b"").code == 0
        for number in (0, 7, 14, 15, 99, 1 << 40):
            assert begun.call("StateChange", encode({1: number})).code == 0


def test_a_call_that_is_too_long() -> None:
    with Plugin() as plugin, plugin.session() as begun:
        before = plugin.resident()
        begun.send(mux.frames(mux.PLUGIN, struct.pack(">IIBB", 32 << 20, 101, 1, 0)))
        frame = mux.frames(mux.PLUGIN, bytes(1 << 16))
        for _ in range(32 << 4):
            begun.send(frame)
        assert begun.answer(101).code == ttrpc.UNKNOWN
        assert begun.call("Shutdown", b"").code == 0
        assert plugin.resident() - before < 4 << 10


@pytest.mark.parametrize(
    "method", ["Configure", "Synchronize", "CreateContainer", "StateChange", "StopContainer"]
)
def test_a_message_that_is_none(method: str) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        assert begun.call(method, b"\x0b io.bpffs.").code == ttrpc.UNKNOWN
        assert begun.call("Shutdown", b"").code == 0


def ask_for_nothing(begun: Session) -> None:
    """Call again and again, and read no answer."""
    for _ in range(100_000):
        begun.begin("Nothing", b"")


def test_an_engine_that_reads_nothing() -> None:
    """What is to be sent to it doesn't grow without end."""
    with Plugin() as plugin:
        begun = plugin.accept()
        with begun.sock:
            begun.start()
            with pytest.raises(ConnectionError):
                ask_for_nothing(begun)
        with plugin.session():
            assert "reads no answers" in plugin.errors.read_text()


def test_anything_at_all(pod: Pod) -> None:
    """Bytes, frames of bytes and calls of bytes: it goes on, or hangs up and comes back."""
    made = random.Random(7)
    with Plugin() as plugin:
        for turn in range(30):
            begun = plugin.accept()
            with begun.sock:
                begun.start()
                data = made.randbytes(made.randrange(1, 3000))
                if turn % 3:
                    data = mux.frames(made.randrange(4), data)
                if turn % 3 == 2:
                    data = mux.frames(mux.PLUGIN, ttrpc.request(1, "s", "m", b"")[:-1] + data)
                begun.send(data)
                begun.sock.shutdown(socket.SHUT_WR)
                try:
                    while begun.sock.recv(1 << 16):
                        pass
                except ConnectionResetError:
                    pass
        with plugin.session() as begun:
            taken_away(plugin, begun, create(begun, pod))
        assert not any("a bug of ours" in line for line in said(plugin))


def test_memory_does_not_grow(pod: Pod) -> None:
    _, request = pod.creation({})
    with Plugin() as plugin, plugin.session() as begun:
        assert begun.call("CreateContainer", request).payload == b""
        before = plugin.resident()
        for number in range(3000):
            assert begun.call("CreateContainer", request).payload == b""
            assert begun.call("StateChange", event(11, f"another-{number}")).code == 0
        assert plugin.resident() - before < 1 << 10
