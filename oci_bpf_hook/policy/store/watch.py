"""Keeps the policy in force up to date in a long-running process, such as the broker."""

import posix
from time import time_ns

from ...errors import HookError
from ...paths import POLICY, RUN
from ...syslog import ERROR, INFO, log
from ..compiled import Compiled
from . import source
from .cache import identity_of, in_force, open_source


class Watched:
    """The policy in force, which is loaded again when its file has changed.

    The log says that `who`, the process, has loaded it.
    """

    def __init__(
        self,
        *,
        header: str | None = None,
        etc: str = POLICY,
        run: str = RUN,
        who: str = "broker",
    ) -> None:
        self._who = who
        self._header = header
        self._etc = etc
        self._run = run
        self._kept: Compiled | HookError | None = None
        # What the policy was made from, and whether a change of that would certainly be noticed.
        self._identity: list[object] = []
        self._steady = False

    def get(self) -> "Compiled | HookError":
        """The policy in force, in memory, or the error in it."""
        try:
            identity = self._now()
            if self._kept is None or not self._steady or identity != self._identity:
                self._load(identity)
        except HookError as error:
            if str(error) != str(self._kept):
                log(ERROR, f"{self._who}: the policy is out of order: {error}")
            self._kept = error
            self._steady = False
        assert self._kept is not None
        return self._kept

    def forget(self) -> None:
        """Have `get` read the file again, even if it looks unchanged."""
        self._kept = None

    def _load(self, identity: list[object]) -> None:
        before = self._kept
        now = time_ns()
        self._kept = in_force(header=self._header, etc=self._etc, run=self._run, in_memory=True)
        changed = identity[-1]
        self._steady = not isinstance(changed, int) or now - changed > source.SETTLED
        if before is None or identity != self._identity:
            log(INFO, f"{self._who}: the policy is in order and in force")
        self._identity = identity

    def _now(self) -> list[object]:
        fd = open_source(self._etc)
        try:
            return identity_of(fd, self._header)
        finally:
            if fd >= 0:
                posix.close(fd)
