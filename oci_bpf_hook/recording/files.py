"""Reads and writes the files of recordings and needs: our own JSON, or a trace of strace's."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..advise import needs
from ..advise.needs import Needs, NeedsError
from ..bpf.names import Enum
from ..errors import USAGE, HookError
from ..whole import Replacement, write
from . import perf_events, strace
from .learn import learn
from .recording import Recording, RecordingError, as_json, from_json

# One line of these can have a million instructions, the most that the verifier takes.
_LONGEST = 128 << 20
_LARGEST = 128 << 20


def from_strace(path: str, enums: Mapping[str, Enum]) -> Recording:
    """The recording made from the trace in the file `path`.  Raises HookError (USAGE)."""
    recording = Recording([f"strace {Path(path).name}"])
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = perf_events.noticing(_lines(file), recording.perf_events)
            for call in strace.calls(lines, enums):
                recording.add(call)
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None
    except RecordingError as error:
        raise HookError(USAGE, f"{path}: {error}") from None
    recording.end()
    return recording


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of `file`.  Raises RecordingError for a line that never ends."""
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise RecordingError("this isn't text: it has a line without an end")
        yield line


def load(path: str, enums: Mapping[str, Enum]) -> Recording:
    """The recording in the file `path`.  Raises HookError (USAGE)."""
    return _parsed(path, _json(path), enums)


def load_needs(path: str, enums: Mapping[str, Enum], *, exact: bool = False) -> Needs:
    """The needs in the file `path`, a recording or the output of advise.

    Raises HookError (USAGE).
    """
    data = _json(path)
    if isinstance(data, dict) and "recording" in data:
        return learn(_parsed(path, data, enums), enums, exact=exact)
    try:
        return needs.from_json(data, enums)
    except NeedsError as error:
        raise HookError(USAGE, f"{path}: {error}") from None


def writable(path: str) -> None:
    """Check that the file `path` can be written, before a program runs for hours.

    Changes nothing and makes no file.  Raises HookError (USAGE).
    """
    try:
        Replacement(path, devices=True).check()
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None


def save(path: str, recording: Recording, enums: Mapping[str, Enum]) -> None:
    """Write `recording` to the file `path`.  Raises HookError (USAGE)."""
    text = json.dumps(as_json(recording, enums), indent=2) + "\n"
    try:
        write(path, text.encode("ascii"), devices=True)
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None


def _json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise HookError(USAGE, f"{path} is larger than {_LARGEST >> 20} MiB")
        return json.loads(data)
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HookError(USAGE, f"{path}: this isn't JSON: {error}") from None


def _parsed(path: str, data: Any, enums: Mapping[str, Enum]) -> Recording:
    try:
        return from_json(data, enums)
    except RecordingError as error:
        raise HookError(USAGE, f"{path}: {error}") from None
