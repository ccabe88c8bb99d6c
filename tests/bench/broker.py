"""A grant by the broker: what it takes beside the same work in C, and after thousands of others."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.support.broker import Broker, Peer
from tests.support.crowd import Crowd
from tests.support.scratch import Scratch

from .launcher import ENVIRONMENT, HERE, MASKS, REQUEST, compile_c
from .samples import Candidate, Group, Measured, group, measure, milliseconds, part

# Those that one broker makes in each round beside the one that is measured: 10,000 in a whole run.
_BETWEEN: Final = 250
_AT_ONCE: Final = 100
# Processes of a user's that only connect, as fast as they can.
_CROWD: Final = 400
_NOBODY: Final = ("setpriv", "--reuid=61999", "--regid=61999", "--clear-groups", "--")
_SETTLED: Final = 2.1


class _Service:
    """A broker with a container's process that asks it, in a `with`."""

    def __init__(self, name: str, *, rate: str = "0") -> None:
        self._stack = ExitStack()
        self._container = Scratch()
        self.path = f"/run/oci-bpf-hook/{name}.sock"
        self.broker = Broker(path=self.path, rate=rate)

    def __enter__(self) -> "_Service":
        self._stack.enter_context(self._container)
        self._stack.enter_context(self.broker)
        self._peer = self._stack.enter_context(Peer(self._container.entering(), self.path))
        # The first reads the policy and imports what it needs.
        self.grant()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def grant(self, count: int = 1) -> float:
        """The milliseconds for so many grants at once."""
        return self._peer.at_once(count, REQUEST)

    def serve(self, count: int) -> None:
        """Have it make so many grants, two at a time."""
        for _ in range(count // 2):
            self.grant(2)


def _in_c(floor: str) -> Callable[[ExitStack], Callable[[], float]]:
    """The `prepare` of the program `floor`, which does the work of a whole hook in C."""

    def prepare(stack: ExitStack) -> Callable[[], float]:
        container = stack.enter_context(Scratch())
        target = [str(container.init.pid), str(container.root), "sys/fs/bpf"]
        command: Sequence[str] = [floor, *target, *MASKS]
        return lambda: milliseconds(command, stdin=b"{}", env=ENVIRONMENT)

    return prepare


def _fresh(stack: ExitStack) -> Callable[[], float]:
    return stack.enter_context(_Service("new")).grant


def _late(
    old: _Service, between: int, sizes: list[float]
) -> Callable[[ExitStack], Callable[[], float]]:
    """The `prepare` of a broker that makes `between` more grants before each that is measured.

    Its memory, in MiB, is added to `sizes` each time.
    """

    def prepare(_stack: ExitStack) -> Callable[[], float]:
        old.serve(between)
        sizes.append(old.broker.resident() / 1024)
        return old.grant

    return prepare


def _in_a_crowd(crowded: _Service) -> Callable[[ExitStack], Callable[[], float]]:
    """The `prepare` of a grant while many processes of one user connect to the same broker."""
    crowd = Crowd(_CROWD, _NOBODY, crowded.path)

    def run() -> float:
        crowd.go_on()
        try:
            return crowded.grant()
        finally:
            crowd.pause()

    def prepare(stack: ExitStack) -> Callable[[], float]:
        stack.enter_context(crowd)
        crowd.pause()
        return run

    return prepare


def broker(directory: Path, *, rounds: int) -> tuple[Group, Group]:
    """The time of a grant, and the broker's memory; compiles the floor into `directory`."""
    floor = str(compile_c(HERE / "floor.c", directory))
    # A policy that has just changed is read anew for each request.
    time.sleep(_SETTLED)
    after: list[float] = []
    between = part(_BETWEEN, rounds)
    with _Service("old") as old, _Service("crowded", rate="20") as crowded:
        before = old.broker.resident() / 1024

        def many(_stack: ExitStack) -> Callable[[], float]:
            return lambda: old.grant(_AT_ONCE)

        beside = _in_a_crowd(crowded)
        label = f"beside {_CROWD} processes that connect"
        times = measure(
            "broker",
            "A grant by the broker, as its peer sees it",
            [
                Candidate(
                    name="floor", label="the work of a whole hook in C", prepare=_in_c(floor)
                ),
                Candidate(name="first", label="a grant by a new broker", prepare=_fresh),
                Candidate(
                    name="late",
                    label=f"by one that has made {between * rounds:,}",
                    prepare=_late(old, between, after),
                ),
                Candidate(name="hundred", label="100 at once, until the last", prepare=many),
                Candidate(name="crowd", label=label, prepare=beside),
            ],
            rounds=rounds,
        )
    return times, _sizes([before] * rounds, after[-rounds:])


def _sizes(before: list[float], after: list[float]) -> Group:
    """The memory of the broker that has made thousands of grants, in MiB, in each round."""
    return group(
        "broker-memory",
        "Resident memory of that broker",
        [
            Measured(name="before", label="at the start"),
            Measured(name="after", label="as it goes on"),
        ],
        {"before": before, "after": after},
        unit="MiB",
    )
