"""The commands that write a file, and what becomes of each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from oci_bpf_hook.errors import DONE, USAGE
from oci_bpf_hook.install.steps import Step
from tests.support.command import Done, command


def seccomp(path: Path) -> Done:
    return command("seccomp", "--output", path)


def _recording(path: Path) -> Path:
    """A recording beside the directory that `path` is in."""
    source = path.parent.parent / "recording.json"
    if not source.exists():
        assert command("record", "--save", source, "--", "true").returncode == DONE
    return source


def _save(path: Path) -> Done:
    return command("record", "--from", _recording(path), "--save", path)


def _output(path: Path) -> Done:
    return command("record", "--from", _recording(path), "--json", "--output", path)


def html(path: Path) -> Done:
    return command("inspect", "--html", path)


def _step(path: Path) -> Done:
    step = Step(action="write", path=path, content=b"content", mode=0o755)
    assert step.needed()
    try:
        step.execute()
    except OSError as error:
        return Done(USAGE, "", f"oci-bpf-hook: {error.filename}: {error.strerror}\n")
    assert not step.needed()
    return Done(DONE, "", "")


WRITERS = {
    "seccomp --output": seccomp,
    "record --save": _save,
    "record --output": _output,
    "inspect --html": html,
    "a step": _step,
}
writers = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
Write = Callable[[Path], Done]
