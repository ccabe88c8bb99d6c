"""Keeps grants away while the guard is removed, and counts the tokens that it leaves behind."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import MOUNT_FAILED, HookError
from ...paths import PINS
from .load import tokens

# Seconds that a grant may take after its mark, that the kernel may take to free tokens, and between
# two looks.
_GRANT = 12
_PUT_AWAY = 2
_AGAIN = 0.02


@contextmanager
def nothing_marked(*, force: bool = False) -> Iterator[None]:
    """Keep everybody from marking a mount meanwhile, so that the guard holds nobody new.

    Waits for grants that are under way.  Raises HookError (MOUNT_FAILED) if they don't end, unless
    `force` is given.
    """
    try:
        fd = os.open(PINS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # There is no guard, or `load.turn_off` says what is there instead.
        yield
        return
    try:
        if not _locked(fd) and not force:
            raise HookError(
                MOUNT_FAILED,
                "grants that the guard has to confine are under way and don't end; see who asks "
                "for them, stop the broker, or add --force",
            )
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    until = time.monotonic() + _GRANT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_AGAIN)
        else:
            return True


def lasting_tokens() -> int:
    """How many confined tokens are left; 0 if they can't be counted.

    Waits a little, because the kernel frees the tokens of processes that have just ended later.
    """
    until = time.monotonic() + _PUT_AWAY
    try:
        while (count := tokens()) and time.monotonic() < until:
            time.sleep(_AGAIN)
    except OSError:
        return 0
    return count
