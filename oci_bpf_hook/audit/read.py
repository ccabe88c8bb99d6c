"""Reads what the audit trail says of a container: which rule granted it, or why it was refused."""

import bz2
import gzip
import json
import lzma
import os
import re
import zlib
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping
from time import strptime
from typing import Any

from ..bpf.names import KINDS
from ..delegation.annotations import PATH, PREFIX
from ..errors import HookError
from ..policy.store.cache import in_force
from ..values import Value


class Granted(Value):
    """A grant: its `rule`, `path` and `time` (in seconds), and the masks as bpffs shows them."""

    __slots__ = ("path", "rule", "shown", "time")
    time: float
    rule: str
    shown: dict[str, str]
    path: str


# A container as the trail knows it, by its id and the uid of its user.  A client tells the broker
# any id it likes, so an id counts only together with the user who asked.
Key = tuple[str, int]
Grants = Mapping[Key, Granted]
_Entry = dict[str, Any]
# The trail is read in blocks of so many bytes.  A line that is longer than _LINE bytes isn't one of
# ours and is skipped.
_BLOCK = 1 << 18
_LINE = 1 << 20
# A line may seem this many seconds older than its container, because the clock may have been set.
_SLACK = 86_400
# Only the line of a refusal has these bytes, since quotation marks in a text are escaped.
_REFUSED = b'"outcome":"refused"'
_Opener = Callable[[str], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]
_OPENERS: Mapping[str, _Opener] = {
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


def grants(wanted: Mapping[Key, float]) -> Grants:
    """The last grant of each `wanted` container, as far as the trail has one and we may read it.

    The value in `wanted` is the time, in seconds, at which the container was made.  Rotated files
    are searched too, as far back as that.
    """

    def key(entry: _Entry) -> Key | None:
        user = asker(entry)
        if entry.get("outcome") != "granted" or not isinstance(entry.get("rule"), str):
            return None
        found = None if user is None else (entry["container"], user)
        return found if found in wanted else None

    found = _latest(
        key,
        len(wanted),
        skip=lambda line: _REFUSED in line,
        since=min(wanted.values(), default=0) - _SLACK,
    )
    return {one: _grant(entry) for one, entry in found.items()}


def last_refusal(name: str) -> _Entry | None:
    """The last entry about a container, if that entry is a refusal, or else None.

    `name` is the container's name, or the beginning of its id.
    """
    as_written = json.dumps(name)[1:-1].encode()

    def key(entry: _Entry) -> Key | None:
        requester = entry.get("requester")
        known_as = requester.get("container") if isinstance(requester, dict) else None
        return (name, 0) if name == known_as or entry["container"].startswith(name) else None

    found = _latest(key, 1, skip=lambda line: as_written not in line, since=0)
    return next((one for one in found.values() if one.get("outcome") == "refused"), None)


def _latest(
    key: Callable[[_Entry], Key | None],
    most: int,
    *,
    skip: Callable[[bytes], bool],
    since: float,
) -> dict[Key, _Entry]:
    """The last entry with each `key`; lines for which `key` returns None are passed over.

    The search ends once `most` keys are found, or at an entry from before `since`.  Lines for which
    `skip` is true aren't decoded.  Only one block and the found entries are held in memory.
    """
    found: dict[Key, _Entry] = {}
    for path in _files(since):
        of_file: dict[Key, _Entry] = {}
        lines, last_first = _lines(path)
        for line in lines:
            entry = None if skip(line) else _decoded(line)
            if entry is None:
                continue
            if last_first and 0 < _time(entry) < since:
                break
            one = key(entry)
            # A compressed file is read from its beginning, and there the last line counts.
            if one is not None and not (last_first and one in of_file):
                of_file[one] = entry
                if last_first and len(found.keys() | of_file.keys()) >= most:
                    break
        found = of_file | found
        if len(found) >= most:
            break
    return found


def _files(since: float) -> Iterator[str]:
    """The trail's files that were written to after the time `since`, the last one first."""
    try:
        # `in_memory`: a command may call this many times, and must not leave files open.
        to = in_force(in_memory=True).audit_to
    except (HookError, OSError):
        return
    if not to.startswith("/"):
        return
    directory, _, name = to.rpartition("/")
    # logrotate's names: with a number or, with dateext, with a date.
    rotated = re.compile(rf"{re.escape(name)}[.-]\d[\d-]*({'|'.join(map(re.escape, _OPENERS))})?")
    found: list[tuple[bool, float, str]] = []
    try:
        with os.scandir(directory) as entries:
            found = [
                (one.name == name, one.stat().st_mtime, one.path)
                for one in entries
                if one.name == name or rotated.fullmatch(one.name)
            ]
    except OSError:
        pass
    for current, changed, path in sorted(found, reverse=True):
        if current or changed >= since:
            yield path


def _lines(path: str) -> tuple[Iterator[bytes], bool]:
    """The lines of the file at `path`, and whether the last one comes first."""
    opener = _OPENERS.get(os.path.splitext(path)[1])
    return (_forwards(path, opener), False) if opener else (_backwards(path), True)


def _backwards(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            end = os.fstat(file.fileno()).st_size
            rest, is_line = b"", True
            while end:
                size = min(_BLOCK, end)
                end -= size
                file.seek(end)
                first, *lines = (file.read(size) + rest).split(b"\n")
                if lines:
                    yield from reversed(lines if is_line else lines[:-1])
                    is_line = True
                rest = first
                if len(rest) > _LINE:
                    rest, is_line = b"", False
            if is_line:
                yield rest
    except OSError:
        return


def _forwards(path: str, opener: _Opener) -> Iterator[bytes]:
    try:
        with opener(path) as file:
            is_line = True
            while line := file.readline(_LINE):
                whole = line.endswith(b"\n")
                if is_line and whole:
                    yield line
                is_line = whole
    except (OSError, EOFError, zlib.error, lzma.LZMAError):  # It is cut off, or isn't such a file.
        return


def _decoded(line: bytes) -> _Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(entry, dict) and isinstance(entry.get("container"), str)
    return entry if known else None


def _grant(entry: _Entry) -> Granted:
    return Granted(
        rule=entry["rule"],
        shown=_shown(entry.get("granted")),
        path=_path(entry),
        time=_time(entry),
    )


def _shown(granted: object) -> dict[str, str]:
    options = granted if isinstance(granted, dict) else {}
    return {
        kind.option: text for kind in KINDS if isinstance(text := options.get(kind.option), str)
    }


def _time(entry: _Entry) -> float:
    try:
        return timegm(strptime(entry["time"], "%Y-%m-%dT%H:%M:%SZ"))
    except (KeyError, TypeError, ValueError):
        return 0


def _path(entry: _Entry) -> str:
    """The path that was asked for, if the line has one."""
    asked = entry.get("requested")
    for key, text in asked.items() if isinstance(asked, dict) else ():
        if key.startswith(f"{PREFIX}path") and isinstance(text, str) and text.startswith("/"):
            return text
    return PATH


def asker(entry: _Entry) -> int | None:
    """The uid of the user who asked, as the kernel said; None if the `entry` doesn't have it."""
    requester = entry.get("requester")
    user = requester.get("user") if isinstance(requester, dict) else None
    return user if isinstance(user, int) else None
