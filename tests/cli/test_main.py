"""cli/main.py: what the command does about itself, in processes of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oci_bpf_hook import __version__
from oci_bpf_hook.cli import main
from oci_bpf_hook.cli.options.table import ENTRIES, Entry
from oci_bpf_hook.errors import BUG, EXITS, LISTED, USAGE, HookError
from tests.support.places import ROOT

COMMAND = [sys.executable, "-m", "oci_bpf_hook"]


def run(*arguments: str, out: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, check=False
    )


@pytest.mark.parametrize("call", [("--help",), ("-h",), ("help",)], ids=str)
def test_help(call: tuple[str, ...]) -> None:
    done = run(*call)
    assert (done.returncode, done.stderr) == (0, "")
    for entry in ENTRIES:
        assert f"\n  {entry.name} " in done.stdout
    for code, text in EXITS.items():
        assert f"\n  {code} " in done.stdout
        assert text in done.stdout
    # None is wider than a terminal.
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("words", [("check",), ("policy", "test"), ("policy",), ("ps",), ("help",)])
def test_help_says_what_the_option_says(words: tuple[str, ...]) -> None:
    done = run("help", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run(*words, "--help").stdout
    page = "inspect" if words == ("ps",) else words[0]
    assert done.stdout.endswith(f"\nMore, with examples: man oci-bpf-hook-{page}\n")


def test_help_of_a_command_that_there_is_not() -> None:
    done = run("help", "chekc")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "invalid choice: 'chekc'" in done.stderr


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_help_says_in_brief_what_the_page_says(entry: Entry) -> None:
    """The first paragraph, and whatever can be on the command line."""
    said = " ".join(run("help", entry.name).stdout.split())
    first, _, rest = entry.about().partition("\n\n")
    assert " ".join(first.split()) in said
    assert not rest or " ".join(rest.split()) not in said


def test_version() -> None:
    assert run("--version").stdout == f"oci-bpf-hook {__version__}\n"


def test_no_command() -> None:
    done = run()
    assert done.returncode == USAGE
    assert done.stdout == run("--help").stdout


def test_a_command_that_there_is_not() -> None:
    done = run("chekc")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "invalid choice: 'chekc'" in done.stderr


def test_a_full_disk_is_a_line() -> None:
    with open("/dev/full", "w") as full:
        done = run("kernel", "--table", out=full.fileno())
    assert done.returncode == USAGE
    assert done.stderr == "oci-bpf-hook: No space left on device\n"


@pytest.mark.parametrize(
    ("closed", "arguments", "code"), [(1, "--version", 0), (2, "nothing", 2), (1, "nothing", 2)]
)
def test_a_stream_that_is_closed(closed: int, arguments: str, code: int) -> None:
    """What would be written there is written nowhere."""
    words = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *COMMAND, arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == ""
    assert (done.stderr != "") == (closed == 1 and code != 0)


def test_a_reader_that_has_seen_enough() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = run("kernel", "--table", out=theirs)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_locale_that_has_no_such_letters(tmp_path: Path) -> None:
    path = tmp_path / "pöd.yaml"
    path.write_text("")
    done = subprocess.run(
        [*COMMAND, "check", "--file", str(path)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == USAGE
    assert done.stderr.startswith(b"oci-bpf-hook: ")
    assert b"d.yaml isn't an OCI config.json" in done.stderr


def test_a_file_name_is_no_line_of_ours(tmp_path: Path) -> None:
    done = run("check", "--file", f"{tmp_path}/a\n\x1b[2Joci-bpf-hook: fine")
    assert done.returncode == USAGE
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_interrupted() -> None:
    with subprocess.Popen(
        [*COMMAND, "check", "--state", "-"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        # Once it waits for its standard input it is in main.
        while "pipe_read" not in Path(f"/proc/{process.pid}/wchan").read_text():
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert (process.returncode, stderr) == (130, b"")


def test_a_bug_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(self: Entry) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(Entry, "load", load)
    assert main.main(["kernel"]) == BUG
    said = capsys.readouterr().err
    assert said.startswith("oci-bpf-hook: a bug of ours, please report it: ZeroDivisionError: ")
    assert said.count("\n") == 1


def test_each_problem_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(self: Entry) -> None:
        raise HookError(USAGE, *(f"problem {number}" for number in range(LISTED + 2)))

    monkeypatch.setattr(Entry, "load", load)
    assert main.main(["kernel"]) == USAGE
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "oci-bpf-hook: problem 0"
    assert lines[-1] == "oci-bpf-hook: and 2 more"
    assert len(lines) == LISTED + 1
