"""The system's log: one line for each decision, and never a wait for it."""

import os
import re
from collections.abc import Iterator

import pytest

from oci_bpf_hook import syslog as module
from tests.support.scratch import NO_BTF, Scratch, assert_failed, header_of_6_9, run_hook
from tests.support.syslog import DevLog

ASK = {"io.bpffs.delegate_cmds": "map_create:prog_load"}
TAG = re.compile(r"oci-bpf-hook\[[1-9][0-9]*\]")
# Facility daemon; informational, and error.
INFO, ERROR = 30, 27


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


@pytest.fixture
def log() -> Iterator[DevLog]:
    with DevLog() as listening:
        yield listening


def test_granted(container: Scratch, log: DevLog) -> None:
    result = run_hook(container.state(ASK), prefix=log.prefix)
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = log.lines()
    assert line.priority == INFO
    assert TAG.fullmatch(line.tag)
    assert line.text.startswith("scratch: granted ")
    assert "delegate_cmds=map_create:prog_load" in line.text
    assert '"/sys/fs/bpf"' in line.text


def test_granted_before(container: Scratch, log: DevLog) -> None:
    for _ in range(2):
        assert run_hook(container.state(ASK), prefix=log.prefix).returncode == 0
    first, second = log.lines()
    assert "granted" in first.text
    assert "already has" in second.text
    assert second.priority == INFO


REFUSED: dict[str, tuple[dict[str, str], int]] = {
    "bad annotation": ({"io.bpffs.delegate_cmd": "x"}, 10),
    "unknown name": ({"io.bpffs.delegate_cmds": "no_such"}, 11),
    "mount": ({**ASK, "io.bpffs.path": "/opt/link"}, 16),
}


@pytest.mark.parametrize(("asked", "code"), REFUSED.values(), ids=REFUSED)
def test_refused(container: Scratch, log: DevLog, asked: dict[str, str], code: int) -> None:
    (container.root / "opt/link").symlink_to("/")
    result = run_hook(container.state(asked), prefix=log.prefix)
    assert_failed(result, code, container=container)
    (line,) = log.lines()
    assert line.priority == ERROR
    assert TAG.fullmatch(line.tag)
    assert f"oci-bpf-hook: {line.text}\n" == result.stderr


def test_a_bad_state(log: DevLog) -> None:
    assert_failed(run_hook(b"{", prefix=log.prefix), 17)
    (line,) = log.lines()
    assert line.priority == ERROR
    assert "exit code 17" in line.text


def test_what_was_dropped(container: Scratch, log: DevLog) -> None:
    newer = "prog_assoc_struct_ops"
    asked = {
        "io.bpffs.delegate_cmds": f"map_create:{newer}",
        "io.bpffs.on_unknown": "drop",
    }
    header = ("--header", str(header_of_6_9(container.outside)))
    result = run_hook(container.state(asked), *header, prefix=(*log.prefix, *NO_BTF))
    assert result.returncode == 0, result.stderr
    (line,) = log.lines()
    assert f"dropped delegate_cmds={newer}" in line.text


def test_a_daemon_that_has_stopped_reading(container: Scratch, log: DevLog) -> None:
    """The line is lost; the container isn't kept waiting, which would be for ever."""
    log.fill()
    result = run_hook(container.state(ASK), prefix=log.prefix)
    assert (result.returncode, result.stderr) == (0, "")
    assert len(container.mounts()) == 1
    assert {line.text for line in log.lines()} == {""}


@pytest.mark.parametrize("listens", [False, True], ids=["none", "nobody behind it"])
def test_no_daemon(container: Scratch, listens: bool) -> None:
    with DevLog(listens=listens) as log:
        log.stop()
        result = run_hook(container.state(ASK), prefix=log.prefix)
        assert (result.returncode, result.stderr) == (0, "")
        assert len(container.mounts()) == 1


def test_a_file_in_its_place(container: Scratch) -> None:
    with DevLog(listens=False) as log:
        with open(log.path, "w") as file:
            file.write("x")
        assert run_hook(container.state(ASK), prefix=log.prefix).returncode == 0
        with open(log.path) as file:
            assert file.read() == "x"


@pytest.mark.parametrize("text", ["x" * 100_000, "\udc80 \ud800", "\N{SNOWMAN}" * 5000])
def test_any_text(monkeypatch: pytest.MonkeyPatch, log: DevLog, text: str) -> None:
    monkeypatch.setattr(module, "DEV_LOG", log.path)
    before = os.listdir("/proc/self/fd")
    module.log(module.ERROR, text)
    assert os.listdir("/proc/self/fd") == before
    (message,) = log.messages()
    assert 30 < len(message) <= 8192
