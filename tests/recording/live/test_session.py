"""Real programs, recorded: what they do is what they would do, and all of it is written down."""

import ctypes
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.errors import KERNEL_CANNOT, NO_BROKER, REFUSED, USAGE
from oci_bpf_hook.kernel import bpf
from oci_bpf_hook.resources import schema
from tests.support import places, recorder
from tests.support.policy import EVERYTHING, UNCONFINED, audited, in_force
from tests.support.recorder import calls, record
from tests.support.scratch import bpf_mounts, install

READY = "made 0 failed 0\n"


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    before = bpf_mounts(), bpf_mounts(1)
    yield
    assert (bpf_mounts(), bpf_mounts(1)) == before


def test_every_call_and_its_result() -> None:
    done = record(calls(), "map", "3")
    assert (done.code, done.stdout, done.stderr) == (0, "made 3 failed 0\n", "")
    jsonschema.validate(done.recording, schema("recording"))
    assert done.counts("token_create") == {"ok": 1}
    assert done.counts() == {"ok": 3}
    assert done.recording["blind"] == ""
    assert done.recording["granted"]["delegate_cmds"] == "0xffffffffffffffff"


def test_thousands() -> None:
    done = record(calls(), "map", "4000")
    assert (done.stdout, done.counts()) == ("made 4000 failed 0\n", {"ok": 4000})
    assert len(done.recording["calls"]) == 2


def test_threads() -> None:
    done = record(calls(), "threads", "16", "50")
    assert (done.stdout, done.counts()) == ("made 800 failed 0\n", {"ok": 800})


def test_more_threads_than_fds() -> None:
    """Each call that is under way takes one of ours, and the program has its own limits."""
    script = 'ulimit -n 64; exec "$@"'
    inner = 'ulimit -Sn; ulimit -Hn; "$0" threads 500 5'
    words = recorder.argv("record", "--output", os.devnull, "--", "sh", "-c", inner, calls())
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    soft, hard, made = done.stdout.splitlines()
    assert (soft, hard) == ("64", "64")
    assert made.startswith("made ")
    script = 'ulimit -Sn 64; exec "$@"'
    words = recorder.argv("record", "--verify", "--", "sh", "-c", f'ulimit -Sn > "$1"; {inner}')
    with tempfile.NamedTemporaryFile("r", dir="/tmp") as seen:
        words += [calls(), seen.name]
        done = subprocess.run(
            ["sh", "-c", script, "sh", *words], capture_output=True, text=True, check=False
        )
        # In the last run of them all it is what it was in the first.
        assert seen.read() == "64\n"
    assert done.returncode == 0
    assert "results-unknown" not in done.stderr


def test_children() -> None:
    done = record(calls(), "fork", "5")
    assert (done.stdout, done.counts()) == ("made 5 failed 0\n" * 2, {"ok": 10})


def test_exec() -> None:
    done = record(calls(), "exec", "5")
    assert (done.stdout, done.counts()) == ("made 5 failed 0\n" * 2, {"ok": 10})
    assert done.counts("token_create") == {"ok": 2}


def test_another_user() -> None:
    done = record(calls(), "setuid", "1000", "3")
    assert (done.stdout, done.counts()) == ("made 3 failed 0\n", {"ok": 3})


def test_a_setuid_program(tmp_path: Path) -> None:
    """It gets the rights that it would get: no_new_privs isn't set, and ids are whose they were."""
    program = Path(calls()).with_name("setuid")
    program.write_bytes(Path(calls()).read_bytes())
    program.chmod(0o4755)
    done = record("setpriv", "--reuid=1000", "--clear-groups", str(program), "map", "2")
    assert (done.stdout, done.counts()) == ("made 2 failed 0\n", {"ok": 2})


def test_signals_while_it_waits() -> None:
    """A call is restarted if we haven't seen it, and left alone if we have: none is there twice."""
    done = record(calls(), "signals", "1500")
    assert (done.stdout, done.counts()) == ("made 1500 failed 0\n", {"ok": 1500})


def test_addresses_that_lead_nowhere() -> None:
    """The kernel answers what it would have answered."""
    unrecorded = ["unshare", "--user", "--map-root-user", calls(), "hostile"]
    plain = subprocess.run(unrecorded, capture_output=True, text=True, check=True).stdout
    done = record(calls(), "hostile")
    assert (done.code, done.stdout) == (0, plain)
    assert done.counts() == {"EFAULT": 4, "E2BIG": 1, "EINVAL": 1}
    unreadable = [one for one in done.recording["calls"] if one["result"] == "EFAULT"]
    assert all("map_type" not in one for one in unreadable)


def test_a_name_that_looks_like_a_line_of_proc_s() -> None:
    """A thread is called what it likes, a carriage return and a number that is none included."""
    code = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "assert libc.prctl(15, b'\\rTgid:x', 0, 0, 0) == 0\n"
        "libc.syscall(int(sys.argv[1]), 0, b'\\2' + bytes(71), 72)\n"
    )
    done = record(sys.executable, "-IS", "-c", code, str(bpf.arch().bpf))
    assert (done.code, done.stderr) == (0, "")
    assert done.counts() == {"EINVAL": 1}


def test_changed_by_another_thread() -> None:
    """What is written down is what was there when we looked; the program doesn't notice."""
    done = record(calls(), "race", "400")
    assert (done.stdout, done.counts()) == ("made 400 failed 0\n", {"ok": 400})
    types = {one.get("map_type") for one in done.recording["calls"]} - {None}
    assert types <= {"array", "hash"}


def test_a_program_of_its_own_that_looks_like_a_probe() -> None:
    done = record(calls(), "own")
    (loaded,) = (one for one in done.recording["calls"] if one["cmd"] == "prog_load")
    assert (loaded["prog_type"], loaded["result"]) == ("cgroup_sock", "ok")
    # libbpf would have tried other things before.
    assert "probe" not in loaded


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


@pytest.mark.parametrize(
    ("program", "code"), [("/no/such/program", 127), ("/etc/passwd", 126), ("", 126)]
)
def test_a_command_that_cannot_be_run(program: str, code: int) -> None:
    done = record(program)
    assert done.code == code
    assert f'"{program}" can\'t be run' in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "prefix",
    [("setpriv", "--reuid=1000", "--clear-groups"), ("unshare", "--user", "--map-root-user")],
)
def test_without_the_privilege(prefix: tuple[str, ...], tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="checkout-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        package = install(Path(directory) / "lib").parent
        code = (
            f"import sys; sys.path.insert(0, {str(package)!r}); from oci_bpf_hook.cli import main; "
        )
        command = ["/usr/bin/python3", "-c", f"{code}sys.exit(main.main())", "record", "--", "true"]
        done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
    assert done.returncode == NO_BROKER, done.stderr
    assert done.stderr == (
        "oci-bpf-hook: delegating takes CAP_SYS_ADMIN in the initial user namespace; use sudo\n"
    )


def test_the_policy_decides() -> None:
    with in_force(UNCONFINED):
        done = record(calls(), "map", "1")
        # The host's network and cgroups: nothing that attaches to them.
        assert int(done.recording["granted"]["delegate_progs"], 16) & 1 << 6 == 0
        (line,) = audited()[-1:]
        assert (line["outcome"], line["requester"]["user"]) == ("granted", os.getuid())
        jsonschema.validate(line, schema("audit"))
        done = record(calls(), "map", "1", options=["--private-network"])
        assert int(done.recording["granted"]["delegate_progs"], 16) & 1 << 6
    with in_force("version: 1\nrules: [{name: none, deny: ask the platform team}]\n"):
        done = record(calls(), "map", "1")
        assert (done.code, done.stdout) == (REFUSED, "")
        assert "ask the platform team" in done.stderr
    (line,) = audited()[-1:]
    assert (line["outcome"], line["rule"]) == ("refused", "none")
    assert line["container"].startswith("record ")
    jsonschema.validate(line, schema("audit"))


def test_the_policy_decides_for_who_called_sudo() -> None:
    rules = EVERYTHING.replace("allow:", "match: {user: 4711}\n    allow:")
    with in_force(rules):
        assert record("true").code == REFUSED
        assert record("true", env={"SUDO_UID": "4711"}).code == 0
    # nobody's group, by the host's database, and root is in none of that id.
    with in_force(EVERYTHING.replace("allow:", "match: {group: 65534}\n    allow:")):
        assert record("true").code == REFUSED
        assert record("true", env={"SUDO_UID": "65534"}).code == 0


def test_a_network_of_its_own() -> None:
    done = record("cat", "/proc/net/dev", options=["--private-network"])
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]] == ["lo"]


def test_another_path() -> None:
    # An error shortens what is long, as a directory of pytest's may be.
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        done = record("cat", "/proc/self/mountinfo", options=["--path", path])
        (mount,) = (line for line in done.stdout.splitlines() if f" {path} " in line)
        assert "delegate_cmds=any" in mount
        assert "nosuid,nodev,noexec" in mount
        done = record("true", options=["--path", f"{path}/missing"])
    assert done.code not in (0, 1)
    assert f'"{path}/missing"' in done.stderr


def test_where_numbers_are_not_known() -> None:
    code = (
        f"import os, sys; sys.path.insert(0, {str(places.ROOT)!r})\n"
        "names = os.uname()\n"
        "os.uname = lambda: type(names)((*names[:4], 'alpha'))\n"
        "from oci_bpf_hook.cli.main import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "record", "--", "echo", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (KERNEL_CANNOT, "")
    assert "the system call numbers of alpha aren't known" in done.stderr


def test_no_breakpoint_to_be_had() -> None:
    """Then results are unknown, and that is said; the program runs all the same."""
    tampered = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=perf_event_open:error=EOPNOTSUPP",
    ]
    # strace -f follows the program too, which has no use for perf_event_open(2).
    command = recorder.argv("record", "--format", "json", "--", calls(), "map", "2")
    done = subprocess.run([*tampered, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout == "made 2 failed 0\n"
    assert "results-unknown" in done.stderr
    assert '"array"' in done.stderr


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


def test_wrong_use() -> None:
    for arguments, words in (
        (["record"], "there is no command"),
        (["record", "--verify", "--from", "x"], "--verify needs a command"),
        (["record", "--from", "x", "--", "true"], "these options run nothing"),
        (["record", "--from", "/no/such/file"], "/no/such/file: No such file"),
        (["record", "--from-strace", "/dev/null"], "there is no call of bpf(2) in it"),
    ):
        done = recorder.command(*arguments)
        assert (done.returncode, done.stdout) == (USAGE, "")
        assert words in done.stderr
