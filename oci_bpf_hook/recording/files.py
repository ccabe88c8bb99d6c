"""Reads and writes the files of recordings and needs: our own JSON, or a trace of strace's."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, TextIO

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
# As on the command line.
STDIN = "-"


def from_strace(path: str, enums: Mapping[str, Enum]) -> Recording:
    """The recording made from the trace in the file `path`, - for stdin.

    Raises HookError (USAGE).
    """
    shown = _shown(path)
    recording = Recording([f"strace {Path(shown).name}"])
    try:
        with _opened(path) as data, _as_text(data) as file:
            lines = perf_events.noticing(_lines(file), recording.perf_events)
            for call in strace.calls(lines, enums):
                recording.add(call)
    except OSError as error:
        raise HookError(USAGE, f"{shown}: {error.strerror}") from None
    except RecordingError as error:
        raise HookError(USAGE, f"{shown}: {error}") from None
    recording.end()
    return recording


def _shown(path: str) -> str:
    return "standard input" if path == STDIN else path


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """The file `path` to read.  Raises OSError."""
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


@contextmanager
def _as_text(data: BinaryIO) -> Iterator[TextIO]:
    file = TextIOWrapper(data, encoding="utf-8", errors="replace")
    try:
        yield file
    finally:
        file.detach()  # Otherwise it would close standard input.


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of `file`.  Raises RecordingError for a line that never ends."""
    while line := file.readline(_LONGEST):
        if len(line) == _LONGEST:
            raise RecordingError("this isn't text: it has a line without an end")
        yield line


def load(path: str, enums: Mapping[str, Enum]) -> Recording:
    """The recording in the file `path`, - for stdin.  Raises HookError (USAGE)."""
    return _parsed(path, _json(path), enums)


def load_needs(path: str, enums: Mapping[str, Enum], *, exact: bool = False) -> Needs:
    """The needs in the file `path`, - for stdin: a recording or the output of advise.

    Raises HookError (USAGE).
    """
    data = _json(path)
    if isinstance(data, dict) and "recording" in data:
        return learn(_parsed(path, data, enums), enums, exact=exact)
    try:
        return needs.from_json(data, enums)
    except NeedsError as error:
        raise HookError(USAGE, f"{_shown(path)}: {error}") from None


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
    shown = _shown(path)
    try:
        with _opened(path) as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise HookError(USAGE, f"{shown} is larger than {_LARGEST >> 20} MiB")
        return json.loads(data)
    except OSError as error:
        raise HookError(USAGE, f"{shown}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HookError(USAGE, f"{shown}: this isn't JSON: {error}") from None


def _parsed(path: str, data: Any, enums: Mapping[str, Enum]) -> Recording:
    try:
        return from_json(data, enums)
    except RecordingError as error:
        raise HookError(USAGE, f"{_shown(path)}: {error}") from None
