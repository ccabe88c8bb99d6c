"""A recorded program is what it would be otherwise: its streams, its signals, and how it ends."""

import ctypes
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import places, recorder
from tests.support.recorder import calls, record

pytestmark = pytest.mark.usefixtures("nothing_stays")

READY = "made 0 failed 0\n"


def test_input_output_and_exit_code() -> None:
    done = record("sh", "-c", 'cat; echo "$0" "$1" >&2; exit 7', "a b", "c", stdin="words")
    assert (done.code, done.stdout, done.stderr) == (7, "words", "a b c\n")


def test_environment_and_place() -> None:
    script = "pwd; umask; id -u; echo $WORD; trap | wc -l; cat /proc/self/status | grep SigIgn"
    done = record("sh", "-c", script, env={"WORD": "x"})
    plain = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "WORD": "x"},
    )
    assert done.stdout == plain.stdout


@contextmanager
def at_their_default(*numbers: int) -> Iterator[None]:
    """The C library's own signals, which GNU make has its commands ignore, and signal() refuses."""
    call, libc = {"x86_64": 13, "aarch64": 134}[os.uname().machine], ctypes.CDLL(None)
    before = {number: ctypes.create_string_buffer(64) for number in numbers}
    for number, action in before.items():
        # rt_sigaction(2): no handler, no flags, no mask.
        assert libc.syscall(call, number, ctypes.create_string_buffer(64), action, 8) == 0
    try:
        yield
    finally:
        for number, action in before.items():
            assert libc.syscall(call, number, action, None, 8) == 0


def test_killed_by_a_signal() -> None:
    # The C library keeps 32 and 33 for itself, but anybody can send them.
    with at_their_default(32, 33):
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, 32, 33, signal.SIGRTMAX):
            done = record("sh", "-c", f"kill -{int(number)} $$")
            assert done.code == -number
            assert done.recording["exit"] == -number


def test_a_parent_that_waits_for_nobody() -> None:
    """Started with SIGCHLD ignored, as some services do: the program is too, and we wait for it."""
    program = ["grep", "-q", "SigIgn:.*1....$", "/proc/self/status"]
    for ending, code in ((program, 0), (["sh", "-c", "exit 7"], 7)):
        words = recorder.argv("record", "--output", os.devnull, "--", *ending)
        ignoring = f"""
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv({sys.executable!r}, {words!r})
"""
        assert subprocess.run([sys.executable, "-c", ignoring], check=False).returncode == code


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_standard_streams_that_are_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    """The program finds them closed as well, and nothing of ours in their place."""
    program = ["sh", "-c", f"ls /proc/self/fd > {tmp_path}/fds; exit 4"]
    closing = ["sh", "-c", f'exec "$@" {" ".join(f"{fd}>&-" for fd in closed)}', "sh"]

    def run(*words: str) -> tuple[int, str, str]:
        done = subprocess.run([*closing, *words], capture_output=True, text=True, check=False)
        # Of errors and of what is needed nothing goes where the output does.
        assert done.stdout == ""
        return done.returncode, done.stderr, (tmp_path / "fds").read_text()

    plain = run(*program)
    to_file = ("--output", str(tmp_path / "needed"))
    assert run(*recorder.argv("record", *to_file, "--", *program)) == plain
    code, _, fds = run(*recorder.argv("record", "--verify", "--", *program))
    # These runs have all three, at /dev/null.
    assert (code, fds.split()[:3]) == (0, ["0", "1", "2"])


@pytest.mark.parametrize(
    ("told", "terminal"),
    [
        (signal.SIGTERM, True),
        # Without a terminal whoever runs us for somebody sends it to us alone.
        (signal.SIGINT, False),
    ],
)
def test_signals_are_handed_on(told: signal.Signals, *, terminal: bool) -> None:
    word = told.name.removeprefix("SIG")
    script = f"trap 'echo told; exit 3' {word}; echo ready; "
    script += "while :; do read -r line || exit 9; done"
    with subprocess.Popen(
        recorder.argv("record", "--output", os.devnull, "--", "sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=not terminal,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(told)
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == "told\n"
    assert process.returncode == 3


def test_interrupted_at_a_terminal() -> None:
    """The terminal tells the program too: it comes once."""
    script = (
        "trap 'echo told' INT; echo ready; n=0; "
        'while [ $n -lt 10 ]; do sleep 0.1; n=$((n + 1)); done; echo "over"'
    )
    pid, terminal = pty.fork()
    if pid == 0:
        words = recorder.argv("record", "--output", os.devnull, "--", "sh", "-c", script)
        os.execv(words[0], words)
    with open(terminal, "r+b", buffering=0) as file:
        seen = b""
        while b"ready" not in seen:
            seen += file.read(100)
        file.write(b"\x03")
        with suppress(OSError):  # EIO, once everybody has gone.
            while more := file.read(100):
                seen += more
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (seen.count(b"told"), seen.count(b"over")) == (1, 1)


def test_the_recorder_is_killed() -> None:
    """Then bpf(2) is no system call any more, for the rest of the program's life."""
    with subprocess.Popen(
        recorder.argv("record", "--", calls(), "until", "ENOSYS"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == READY
        process.kill()
        assert process.stdout.read() == "ENOSYS\n", "it ends by itself"


def test_killed_while_it_waits() -> None:
    """A call that never returns has no result; nobody waits for it."""
    script = f"{calls()} until ENOSYS & echo $!; wait; exit 0"
    with subprocess.Popen(
        recorder.argv("record", "--output", os.devnull, "--", "sh", "-c", script),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        lines = {process.stdout.readline(), process.stdout.readline()}
        (pid,) = lines - {READY}
        os.kill(int(pid), signal.SIGKILL)
        assert process.stdout.read() == ""
    assert process.returncode == 0


def test_children_that_outlive_it() -> None:
    """The command is over when it is over; who it leaves behind isn't cut off."""
    left = f"(read -r line; {calls()} map 3) <&3 & exit 4"
    keep = ["sh", "-c", 'exec 3<&0; exec "$@" </dev/null', "sh"]
    reader, writer = os.pipe()
    with subprocess.Popen(
        [*keep, *recorder.argv("record", "--output", os.devnull, "--", "sh", "-c", left)],
        stdin=reader,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(reader)
        assert process.wait() == 4
        os.write(writer, b"go\n")
        os.close(writer)
        assert process.stdout
        assert process.stdout.read() == "made 3 failed 0\n"


def test_a_listener_of_its_own() -> None:
    """The kernel allows one for a process and its ancestors, and that is ours."""
    install = (
        f"import sys; sys.path.insert(0, {str(places.ROOT)!r})\n"
        "from oci_bpf_hook.recording.live import filter, syscalls\n"
        "try:\n    syscalls.seccomp_new_listener(filter.program())\n"
        "except OSError as error:\n    print(error.strerror)\n"
    )
    done = record(sys.executable, "-c", install)
    assert done.stdout == "seccomp: Device or resource busy\n"


def test_what_stays_behind_holds_nothing() -> None:
    """Whoever serves the program's children has no end of anybody's pipes."""
    reader, writer = os.pipe()
    idle, hold = os.pipe()
    leave = f"import os\nif os.fork() == 0:\n    os.close({writer})\n    os.read({idle}, 1)\n"
    with subprocess.Popen(
        recorder.argv("record", "--output", os.devnull, "--", sys.executable, "-c", leave),
        pass_fds=(writer, idle),
    ) as process:
        os.close(writer)
        assert process.wait() == 0
    # Its child has let go of it, and lives.
    assert os.read(reader, 1) == b""
    for fd in (reader, idle, hold):
        os.close(fd)
