"""Processes that die, or stop, at every step of a grant: nothing may be left of it.

A step is a system call: a tracer stops the hook or its child in front of each in turn, and
the test kills what it is about.  The target doesn't exist, so that there are directories
to take back, too.
"""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.scratch import Scratch, assert_failed, hooks_alive, run_hook
from tests.support.tracer import Call, Traced, inject, reaped, trace

ASK = {"io.bpffs.delegate_cmds": "map_create:prog_load", "io.bpffs.path": "/opt/new/deep"}


@pytest.fixture(autouse=True, scope="module")
def compiled() -> None:
    """The hook makes the same calls each time only if Python has compiled it before."""
    with Scratch() as scratch:
        assert scratch.hook(ASK).returncode == 0


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


def steps(state: dict[str, object], whose: Callable[[Call], bool]) -> Iterator["Step"]:
    """One run after another, each to be ended at the next of the calls that are `whose`."""
    number = 0
    while True:
        number += 1
        step = Step(state, whose, number)
        yield step
        if not step.reached:
            assert number > 20, "the calls weren't found"
            return


class Step:
    """The `number`-th of those calls; `at` runs the hook and acts when it comes to it."""

    def __init__(
        self, state: dict[str, object], whose: Callable[[Call], bool], number: int
    ) -> None:
        self._state = state
        self._whose = whose
        self.number = number
        self.reached = False

    def at(self, act: Callable[[Call], None]) -> Traced:
        passed = 0

        def count(call: Call) -> None:
            nonlocal passed
            if self._whose(call):
                passed += 1
                if passed == self.number:
                    self.reached = True
                    act(call)

        return trace(self._state, count)


def of_child(call: Call) -> bool:
    return call.pid == call.child


def of_hook_after_fork(call: Call) -> bool:
    return call.pid == call.hook and call.child != 0


def kept(container: Scratch) -> bool:
    """Whether the grant is complete; what there was of it is taken away for the next run."""
    mounts = container.mounts()
    if not mounts:
        return False
    (mount,) = mounts
    assert mount.endswith(",delegate_cmds=map_create:prog_load")
    done = container.enter("umount", str(container.root / "opt/new/deep"))
    assert done.returncode == 0, done.stderr
    (container.root / "opt/new/deep").rmdir()
    (container.root / "opt/new").rmdir()
    container.assert_untouched()
    return True


def test_the_child_is_killed(container: Scratch) -> None:
    granted = 0
    for step in steps(container.state(ASK), of_child):
        result = step.at(lambda call: os.kill(call.child, signal.SIGKILL)).result
        if result.returncode == 0:
            # Only behind the last message it has to wait for.
            granted += 1
            assert kept(container)
        else:
            assert_failed(result, 16, "killed by signal 9", container=container)
    assert granted in (2, 3)  # In front of its end, and the run in which nobody was killed.


def test_the_child_is_killed_that_has_made_no_directory(container: Scratch) -> None:
    """Then there is the mount alone to take off, once it is attached."""
    asked = {"io.bpffs.delegate_cmds": "map_create:prog_load"}
    for step in steps(container.state(asked), of_child):
        result = step.at(lambda call: os.kill(call.child, signal.SIGKILL)).result
        if result.returncode == 0:
            assert len(container.mounts()) == 1
            assert step.number > 20
            return
        assert_failed(result, 16, "killed by signal 9", container=container)


def test_the_hook_is_killed(container: Scratch) -> None:
    granted = 0
    for step in steps(container.state(ASK), of_hook_after_fork):
        result = step.at(lambda call: os.kill(call.hook, signal.SIGKILL)).result
        assert hooks_alive() == []
        assert result.stderr == ""
        if kept(container):
            granted += 1
        else:
            assert not granted
            assert result.returncode == -signal.SIGKILL
            container.assert_untouched()
    assert granted


@pytest.mark.parametrize("whose", [of_child, of_hook_after_fork])
def test_init_is_killed(whose: Callable[[Call], bool]) -> None:
    """Up to where the hook looks for the last time whether it lives: the mount is attached."""
    granted = 0
    number = 0
    reached = True
    while reached:
        number += 1
        with Scratch() as container:
            step = Step(container.state(ASK), whose, number)
            result = step.at(lambda call: reaped(container.init.pid)).result
            reached = step.reached
            if result.returncode == 0:
                granted += 1
            else:
                assert not granted
                assert_failed(result, 17, "died", container=container)
    if whose is of_child:
        # At most while it waits for the last word, in front of its end, and in the run in
        # which nobody was killed.
        assert granted in (1, 2, 3)
    else:
        assert granted


def test_the_child_is_stopped(container: Scratch) -> None:
    result = run_hook(container.state(ASK), prefix=inject("fsmount:signal=SIGSTOP"))
    assert_failed(result, 16, "hung", "4 seconds", container=container)
