"""The plugin's processes die, stop or are too slow at every step of a grant.

The engine gets an answer before its own deadline, since it would go on without the plugin then; and
neither a mount nor a process is left.
"""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from oci_bpf_hook.paths import RUN
from tests.support.nri import (
    Plugin,
    Pod,
    Session,
    held,
    mount_of,
    nothing_left,
    taken_away,
)
from tests.support.processes import wait_until_gone

# Calls that only processes for one creation make, each of a half of its own.
CALLS = ("setns", "unshare", "fsopen", "fsconfig", "fsmount", "move_mount", "openat2", "mkdirat")


def injecting(call: str, number: str, when: int = 1) -> tuple[str, ...]:
    """A command that sends a signal to whichever process makes this call."""
    inject = f"inject={call}:signal={number}:when={when}"
    return ("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)


@contextmanager
def busy() -> Iterator[None]:
    """Whoever attaches a mount has to wait for so long."""
    os.makedirs(RUN, exist_ok=True)
    fd = os.open(RUN, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def begin(plugin: Plugin, begun: Session, pod: Pod) -> tuple[int, int]:
    """Have it begin to serve a request: the call's number, and the process that serves it."""
    before = plugin.children()
    number = begun.begin("CreateContainer", pod.creation()[1])
    while not (new := set(plugin.children()) - set(before)):
        assert plugin.process.poll() is None
    return number, new.pop()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", ["KILL", "STOP"])
def test_a_process_dies_or_stops(pod: Pod, call: str, number: str) -> None:
    with Plugin(prefix=injecting(call, number)) as plugin, plugin.session() as begun:
        _, request = pod.creation()
        answer = begun.call("CreateContainer", request)
        assert answer.code == 2
        assert answer.message.endswith("(exit code 16)"), answer.message
        # Who doesn't ask isn't hurt, nor is the session.
        assert begun.call("CreateContainer", pod.creation({})[1]).code == 0
    collected()


def collected() -> None:
    """Nothing is left, at the latest once there is another plugin."""
    with Plugin() as plugin, plugin.session():
        wait_until_gone(plugin.children())
    assert nothing_left()


def test_it_is_too_slow(pod: Pod) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        with busy():
            began = monotonic()
            number = begun.begin("CreateContainer", request)
            # The others don't wait for it.
            others = begun.begin("CreateContainer", pod.creation({})[1])
            assert begun.answer(others).code == 0
            answer = begun.answer(number)
            took = monotonic() - began
        assert answer.code == 2
        assert (
            "took more than 1.2 seconds" in answer.message
            or "hung" in answer.message
            or ("killed" in answer.message)
        )
        assert took < 2
        wait_until_gone(plugin.children())
        assert identity not in held()
        # And the next one gets its own.
        identity, request = pod.creation()
        assert mount_of(begun.call("CreateContainer", request))
        taken_away(plugin, begun, identity)


def test_an_engine_that_waits_less(pod: Pod) -> None:
    with Plugin() as plugin, plugin.session(timeout=500) as begun:
        with busy():
            answer = begun.call("CreateContainer", pod.creation()[1])
        assert "took more than 0.3 seconds (exit code 16)" in answer.message
        wait_until_gone(plugin.children())


def test_its_process_is_killed(pod: Pod) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        with busy():
            number, process = begin(plugin, begun, pod)
            os.kill(process, signal.SIGKILL)
            assert "has died" in begun.answer(number).message
        wait_until_gone(plugin.children())


def test_the_plugin_is_killed(pod: Pod) -> None:
    """Its processes end with it."""
    with Plugin() as plugin, plugin.session() as begun, busy():
        _, process = begin(plugin, begun, pod)
        plugin.process.kill()
        plugin.process.wait()
        wait_until_gone([process])
    collected()


def test_it_is_killed_after_it_has_given(pod: Pod) -> None:
    """The engine goes on with that container, or ends it; then the next plugin collects."""
    with Plugin() as plugin, plugin.session() as begun:
        identity, request = pod.creation()
        assert mount_of(begun.call("CreateContainer", request))
        plugin.process.kill()
        plugin.process.wait()
        assert held() == [identity]
    collected()


def test_the_engine_dies(pod: Pod) -> None:
    with Plugin() as plugin:
        begun = plugin.accept()
        begun.start()
        with busy():
            begin(plugin, begun, pod)
            begun.sock.close()
            with plugin.session():
                wait_until_gone(plugin.children())
    assert nothing_left()


def test_a_path_that_does_not_answer(pod: Pod, tmp_path_factory: pytest.TempPathFactory) -> None:
    fifo = tmp_path_factory.mktemp("fifo") / "user"
    os.mkfifo(fifo)
    named = {"user": str(fifo)}
    with Plugin() as plugin, plugin.session() as begun:
        answer = begun.call("CreateContainer", pod.creation(namespaces=named)[1])
        assert "no user namespace" in answer.message
