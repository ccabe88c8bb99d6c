"""Before the guard goes: that nobody is granted anything meanwhile, and whether tokens stay."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import MOUNT_FAILED, HookError
from .load import PINS, tokens

# Seconds that a grant may take from its mark on, and the kernel to put away tokens.
_GRANT = 12
_PUT_AWAY = 2
_AGAIN = 0.02


@contextmanager
def nothing_marked(*, force: bool = False) -> Iterator[None]:
    """Have nothing marked meanwhile: whom the guard holds now are all whom it can.

    Grants that are under way are waited for.  Raises HookError (MOUNT_FAILED) where they don't
    end, unless `force` is given.
    """
    try:
        fd = os.open(PINS, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # There is none, or `turn_off` says what is there instead.
        yield
        return
    try:
        if not _locked(fd) and not force:
            raise HookError(
                MOUNT_FAILED,
                "grants that the guard is to hold are under way, and they don't end; see who asks "
                "for them, stop the broker, or say --force",
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
    """How many confined tokens stay; those of what has just ended the kernel puts away later.

    0 where they can't be counted.
    """
    until = time.monotonic() + _PUT_AWAY
    try:
        while (count := tokens()) and time.monotonic() < until:
            time.sleep(_AGAIN)
    except OSError:
        return 0
    return count
