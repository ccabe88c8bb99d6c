"""Recordings and needs in files: JSON of ours, or a trace of strace's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..advise import needs
from ..advise.needs import Needs, NeedsError
from ..errors import USAGE, HookError
from ..names import Enum
from . import strace
from .learn import learn
from .recording import Recording, RecordingError, as_json, from_json


def from_strace(path: str, enums: Mapping[str, Enum]) -> Recording:
    """The recording that the trace in the file `path` is.  Raises HookError (USAGE)."""
    recording = Recording([f"strace {Path(path).name}"])
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for call in strace.calls(lines, enums):
                recording.add(call)
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None
    except RecordingError as error:
        raise HookError(USAGE, f"{path}: {error}") from None
    recording.end()
    return recording


def load(path: str, enums: Mapping[str, Enum]) -> Recording:
    """The recording in the file `path`.  Raises HookError (USAGE)."""
    return _parsed(path, _json(path), enums)


def load_needs(path: str, enums: Mapping[str, Enum], *, exact: bool = False) -> Needs:
    """The needs in the file `path`, a recording or what advise has written.

    Raises HookError (USAGE).
    """
    data = _json(path)
    if isinstance(data, dict) and "recording" in data:
        return learn(_parsed(path, data, enums), enums, exact=exact)
    try:
        return needs.from_json(data, enums)
    except NeedsError as error:
        raise HookError(USAGE, f"{path}: {error}") from None


def save(path: str, recording: Recording, enums: Mapping[str, Enum]) -> None:
    """Write `recording` to the file `path`.  Raises HookError (USAGE)."""
    text = json.dumps(as_json(recording, enums), indent=2) + "\n"
    try:
        Path(path).write_text(text, encoding="ascii")
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None


def _json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise HookError(USAGE, f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise HookError(USAGE, f"{path} is no JSON: {error}") from None


def _parsed(path: str, data: Any, enums: Mapping[str, Enum]) -> Recording:
    try:
        return from_json(data, enums)
    except RecordingError as error:
        raise HookError(USAGE, f"{path}: {error}") from None
