"""What the audit trail says of a container: which rule granted, or why it was refused."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import HookError
from .policycache import in_force

# The rule that granted, by the container's id and the user whose it is.
Rules = Mapping[tuple[str, int], str]
# So much of the trail's end is looked at.
_MOST = 8 << 20


def entries() -> Iterator[dict[str, Any]]:
    """The trail's lines, oldest first, as far as we may read them and they aren't cut off."""
    try:
        to = in_force().audit_to
    except (HookError, OSError):
        return
    if not to.startswith("/"):
        return
    # logrotate's last one before the one that is written.
    for path in (f"{to}.1", to):
        for line in _end_of(path):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("container"), str):
                yield entry


def granted_rules() -> Rules:
    """The rule that granted each container its delegation, by its id and the user whose it is.

    A broker is told ids by whoever asks it, and so another user's is no other's container.
    """
    return {
        (entry["container"], user): entry["rule"]
        for entry in entries()
        if entry.get("outcome") == "granted"
        and isinstance(entry.get("rule"), str)
        and (user := asker(entry)) is not None
    }


def asker(entry: dict[str, Any]) -> int | None:
    """The user for whom was asked, by the kernel's word; None if the line doesn't say."""
    requester = entry.get("requester")
    user = requester.get("user") if isinstance(requester, dict) else None
    return user if isinstance(user, int) else None


def last_refusal(name: str) -> dict[str, Any] | None:
    """The line about the container with this id or name, if the last about it is a refusal."""
    last: dict[str, Any] | None = None
    for entry in entries():
        requester = entry.get("requester")
        known_as = requester.get("container") if isinstance(requester, dict) else None
        if name == known_as or entry["container"].startswith(name):
            last = entry
    return last if last is not None and last.get("outcome") == "refused" else None


def _end_of(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - _MOST, 0))
            return file.read(_MOST).splitlines()
    except OSError:
        return []
