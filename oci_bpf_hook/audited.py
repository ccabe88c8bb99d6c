"""What the audit trail says of a container: which rule granted, or why it was refused."""

import json
import os
from calendar import timegm
from collections.abc import Iterator, Mapping
from time import strptime
from typing import Any

from .annotations import PATH, PREFIX
from .errors import HookError
from .names import KINDS
from .policycache import in_force
from .record import Record


class Granted(Record):
    """A grant: the `rule`, the delegate_* options as `shown`, the `path`, and when in seconds."""

    __slots__ = ("path", "rule", "shown", "time")
    time: float
    rule: str
    shown: dict[str, str]
    path: str


Grants = Mapping[tuple[str, int], Granted]
# So much of the trail's end is looked at.
_MOST = 8 << 20


def entries() -> Iterator[dict[str, Any]]:
    """The trail's lines, oldest first, as far as we may read them and they aren't cut off."""
    try:
        # It may be asked for again and again, and no file is to stay open for it.
        to = in_force(in_memory=True).audit_to
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


def grants() -> Grants:
    """The last grant of each container, by its id and the user whose it is.

    A broker is told ids by whoever asks it, and so another user's is no other's container.
    """
    return {
        (entry["container"], user): Granted(
            rule=entry["rule"],
            shown=_shown(entry.get("granted")),
            path=_path(entry),
            time=_time(entry),
        )
        for entry in entries()
        if entry.get("outcome") == "granted"
        and isinstance(entry.get("rule"), str)
        and (user := asker(entry)) is not None
    }


def _shown(granted: object) -> dict[str, str]:
    options = granted if isinstance(granted, dict) else {}
    return {
        kind.option: text for kind in KINDS if isinstance(text := options.get(kind.option), str)
    }


def _time(entry: dict[str, Any]) -> float:
    try:
        return timegm(strptime(entry["time"], "%Y-%m-%dT%H:%M:%SZ"))
    except (KeyError, TypeError, ValueError):
        return 0


def _path(entry: dict[str, Any]) -> str:
    """Where it was asked for, as far as the line says that."""
    asked = entry.get("requested")
    for key, text in asked.items() if isinstance(asked, dict) else ():
        if key.startswith(f"{PREFIX}path") and isinstance(text, str) and text.startswith("/"):
            return text
    return PATH


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
