"""The broker and its processes die, or stop, at every step of a grant.

The container starts with the whole grant or not at all, and the next broker has nothing to
clean up.  A step is a system call of the hook or of its container half, in front of which a
tracer stops them, once the half is there.
"""

import os
import signal
from collections.abc import Callable

from oci_bpf_hook.errors import MOUNT_FAILED, NO_BROKER
from oci_bpf_hook.mount.host_half import ASKING
from tests.support.broker import Broker
from tests.support.scratch import LIMIT, Scratch, assert_failed, hooks_alive, install, io
from tests.support.tracer import Call, Traced, trace

ASK = {**io(delegate_cmds="map_create:prog_load"), **io(path="/opt/new/deep")}
# Of about a hundred; each is a broker, a container and a traced hook of its own.
STEPS = 12


def traced(container: Scratch, at: Callable[[int], None]) -> Traced:
    """Run the hook in the container; `at` is called with the number of each call that counts."""
    launcher = container.outside / "installed" / "oci-bpf-hook"
    if not launcher.exists():
        install(launcher.parent)
    count = 0

    def act(call: Call) -> None:
        nonlocal count
        if call.child:
            count += 1
            at(count)

    command = [*container.entering(), str(launcher)]
    return trace(container.state(ASK, pid=0), act, command=command, limit=ASKING + LIMIT)


def steps() -> int:
    """How many calls there are, once Python has compiled the hook."""
    calls: list[int] = []
    with Broker(), Scratch() as container:
        for _ in range(2):
            calls.clear()
            assert traced(container, calls.append).result.returncode == 0
            container.enter("umount", f"{container.root}/opt/new/deep")
    return calls[-1]


def whole_or_none(container: Scratch, done: Traced) -> bool:
    """Whether it has started with the whole grant; else there is nothing."""
    result = done.result
    if result.returncode:
        code = result.returncode
        assert code in (NO_BROKER, MOUNT_FAILED), result.stderr
        assert_failed(result, code, "broker", container=container)
        return False
    (mount,) = container.mounts()
    assert mount.endswith(",delegate_cmds=map_create:prog_load")
    assert hooks_alive() == []
    return True


def test_the_broker_is_killed() -> None:
    last = steps()
    started: list[bool] = []
    for number in range(1, last + 1, last // STEPS):
        with Broker() as broker, Scratch() as container:

            def kill(count: int, at: int = number, broker: Broker = broker) -> None:
                if count == at:
                    broker.kill()

            started.append(whole_or_none(container, traced(container, kill)))
    # Before it has given the mount, and after.
    assert not started[0]
    assert started[-1]
    assert sorted(started) == started


def acting(broker: Broker, at: int, number: int) -> Callable[[int], None]:
    """Sends `number` to the broker's processes, the first time there are any from `at` on."""
    hit: list[int] = []

    def act(count: int) -> None:
        if count >= at and not hit:
            hit.extend(broker.children())
            for pid in hit:
                os.kill(pid, number)

    return act


def test_a_requests_process_is_killed() -> None:
    last = steps()
    for at in range(last // 4, last + 1, last // 6):
        with Broker() as broker, Scratch() as container:
            whole_or_none(container, traced(container, acting(broker, at, signal.SIGKILL)))


def test_a_requests_process_is_stopped() -> None:
    """It isn't waited for, and the broker ends it."""
    with Broker() as broker, Scratch() as container:
        before = broker.fds()
        assert not whole_or_none(container, traced(container, acting(broker, 1, signal.SIGSTOP)))
        broker.quiet(before)
