"""The process that the hook starts as: what it inherits, and where it was started from."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.scratch import (
    LAUNCHER,
    LIMIT,
    Scratch,
    assert_failed,
    assert_granted,
    install,
    run_hook,
)
from tests.support.tracer import Call, fds, trace

ASK = {"io.bpffs.delegate_cmds": "map_create:prog_load"}


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The launcher in the installed layout: beside the package, and not compiled yet."""
    return install(tmp_path / "a b'c")


BLOCKED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])
"""
IGNORED = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:  # libc's own.
        pass
os.execv(sys.argv[1], sys.argv[1:])
"""
FULL_OF_FDS = """
import os, sys
for _ in range(500):
    os.set_inheritable(os.open("/", os.O_RDONLY), True)
os.execv(sys.argv[1], sys.argv[1:])
"""
BROKEN_PIPE = """
import os, sys
reading, writing = os.pipe()
os.dup2(writing, 2)
os.close(reading)
os.execv(sys.argv[1], sys.argv[1:])
"""
CWD_DELETED = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'

PREFIXES: dict[str, tuple[str, ...]] = {
    "stdout closed": ("sh", "-c", 'exec "$@" >&-', "sh"),
    "stderr closed": ("sh", "-c", 'exec "$@" 2>&-', "sh"),
    "both closed": ("sh", "-c", 'exec "$@" >&- 2>&-', "sh"),
    "stderr full": ("sh", "-c", 'exec "$@" 2>/dev/full', "sh"),
    "stderr a broken pipe": (sys.executable, "-c", BROKEN_PIPE),
    "signals blocked": (sys.executable, "-c", BLOCKED),
    "signals ignored": (sys.executable, "-c", IGNORED),
    "fds inherited": (sys.executable, "-c", FULL_OF_FDS),
    "another root group": ("setpriv", "--groups", "1,2,3", "--"),
    "no new privileges": ("setpriv", "--no-new-privs", "--"),
    "a session's leader": ("setsid", "--wait"),
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_the_process_it_starts_as(container: Scratch, prefix: tuple[str, ...]) -> None:
    assert_granted(container, run_hook(container.state(ASK), prefix=prefix))


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_the_process_it_starts_as_and_a_refusal(
    container: Scratch, prefix: tuple[str, ...]
) -> None:
    result = run_hook(container.state(ASK, status="running"), prefix=prefix)
    assert (result.returncode, result.stdout) == (17, "")
    assert "Traceback" not in result.stderr
    container.assert_untouched()


def test_stdin_closed(container: Scratch) -> None:
    result = run_hook(container.state(ASK), prefix=("sh", "-c", 'exec "$@" <&-', "sh"))
    assert_failed(result, 17, "can't be read", container=container)


def test_stderr_that_nobody_reads(container: Scratch) -> None:
    """A full pipe, as of an engine that waits for the hook's end before it reads."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        state = json.dumps(container.state(ASK, status="running"))
        done = subprocess.run(
            [str(LAUNCHER)],
            input=state.encode(),
            stderr=writing,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 17
    finally:
        os.close(reading)
        os.close(writing)


def test_stdin_that_does_not_wait(container: Scratch) -> None:
    """A runtime that polls its own pipes may hand over one that is so too."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    process = subprocess.Popen([str(LAUNCHER)], stdin=reading, stderr=subprocess.PIPE)
    assert process.stderr
    try:
        with process.stderr:
            # Until it waits in read(0, buffer, 65536), which has another number everywhere.
            call = Path(f"/proc/{process.pid}/syscall")
            while process.poll() is None and call.read_text().split()[1:4:2] != ["0x0", "0x10000"]:
                pass
            os.write(writing, json.dumps(container.state(ASK)).encode())
            os.close(writing)
            said = process.stderr.read().decode()
        assert (process.wait(), said) == (0, "")
    finally:
        os.close(reading)
    assert len(container.mounts()) == 1


def test_no_proc(container: Scratch) -> None:
    prefix = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
    result = run_hook(container.state(ASK), prefix=prefix)
    assert_failed(result, 17, "/proc is missing", container=container)


@pytest.mark.parametrize("most", range(4, 14))
def test_too_few_fds(container: Scratch, most: int) -> None:
    prefix = ("prlimit", f"--nofile={most}:{most}", "--")
    result = run_hook(container.state(ASK), prefix=prefix)
    assert "died" not in result.stderr
    if result.returncode:
        assert "Traceback" not in result.stderr
        assert result.stderr.count("\n") == 1
        # Before it has any that it could look with, it is /proc that says no.
        assert "oo many open files" in result.stderr
        container.assert_untouched()
    else:
        assert len(container.mounts()) == 1


def test_everything_closed(container: Scratch) -> None:
    result = run_hook(container.state(ASK), prefix=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
    assert (result.returncode, result.stderr) == (17, "")
    container.assert_untouched()


def test_cwd_deleted(container: Scratch, tmp_path: Path) -> None:
    prefix = ("sh", "-c", CWD_DELETED, str(tmp_path / "gone"))
    assert_granted(container, run_hook(container.state(ASK), prefix=prefix))


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A directory of modules that leave `sprung` behind if they are imported."""
    text = f'import posix\nposix.mkdir("{tmp_path}/sprung")\n'
    for name in ("json", "posix", "fcntl", "mmap", "_socket", "sitecustomize", "usercustomize"):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "oci_bpf_hook").mkdir()
    for name in ("__init__", "hook", "state"):
        (tmp_path / "oci_bpf_hook" / f"{name}.py").write_text(text)
    return tmp_path


def test_traps_in_cwd(container: Scratch, traps: Path) -> None:
    assert_granted(container, run_hook(container.state(ASK), cwd=traps))
    assert not (traps / "sprung").exists()


def test_traps_in_the_environment(container: Scratch, traps: Path) -> None:
    environment = {
        "PYTHONPATH": str(traps),
        "PYTHONHOME": str(traps),
        "PYTHONUSERBASE": str(traps),
        "PYTHONSTARTUP": str(traps / "json.py"),
        "PYTHONINSPECT": "1",
        "PYTHONVERBOSE": "1",
        "PYTHONPYCACHEPREFIX": str(traps / "sprung"),
        "PYTHONIOENCODING": "utf-16",
        "HOME": str(traps),
        "LC_ALL": "tr_TR.ISO-8859-9",
        "TZ": f":{traps}/json.py",
        "TMPDIR": "/nowhere",
    }
    assert_granted(container, run_hook(container.state(ASK), env=environment))
    assert not (traps / "sprung").exists()


def test_traps_beside_the_package(container: Scratch, installed: Path, traps: Path) -> None:
    for path in traps.glob("*.py"):
        path.rename(installed.parent / path.name)
    assert_granted(container, run_hook(container.state(ASK), launcher=installed))
    assert not (traps / "sprung").exists()


def test_umask_0(container: Scratch, installed: Path) -> None:
    prefix = ("sh", "-c", 'umask 0; exec "$@"', "sh")
    state = container.state({**ASK, "io.bpffs.path": "/opt/new/deep"})
    assert_granted(container, run_hook(state, prefix=prefix, launcher=installed))
    for path in (container.root / "opt/new", container.root / "opt/new/deep"):
        assert path.stat().st_mode & 0o7777 == 0o755
    # What Python has compiled runs as root the next time.
    written = [installed.parent, *installed.parent.rglob("*")]
    assert any(path.name == "__pycache__" for path in written)
    assert [path for path in written if path.stat().st_mode & 0o022] == []


@pytest.mark.parametrize("prefix", [(), ("blocked",)], ids=["plain", "every signal blocked"])
def test_a_state_that_never_ends(prefix: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b'{"id": "x", ')
        command = (sys.executable, "-c", BLOCKED) if prefix else ()
        assert_failed(run_hook(reading, prefix=command), 17, "didn't end within 4 seconds")
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("number", ["SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_all_of_a_runtimes_processes(container: Scratch, number: str) -> None:
    """Such as ^C in a terminal: both halves have it at once, in front of each kind of call."""
    # A call that is traced is made anew after a signal.
    seen: set[tuple[int, int]] = set()

    def act(call: Call) -> None:
        if call.child and (call.pid, call.number) not in seen:
            seen.add((call.pid, call.number))
            os.killpg(call.hook, signal.Signals[number])

    state = container.state({**ASK, "io.bpffs.path": "/opt/new/deep"})
    assert_granted(container, trace(state, act).result)
    assert len(seen) > 20


# ---- where it is -----------------------------------------------------------------------


def test_installed(container: Scratch, installed: Path) -> None:
    assert_granted(container, run_hook(container.state(ASK), launcher=installed))


@pytest.mark.parametrize("relative", ["./oci-bpf-hook", "../hooks.d/oci-bpf-hook"])
def test_a_relative_path(container: Scratch, relative: str) -> None:
    result = run_hook(container.state(ASK), launcher=relative, cwd=LAUNCHER.parent)
    assert_granted(container, result)


@pytest.mark.parametrize("target", ["absolute", "relative"])
@pytest.mark.parametrize("invoked", ["absolute", "relative"])
def test_a_symlink_to_a_symlink(
    container: Scratch, installed: Path, tmp_path: Path, target: str, invoked: str
) -> None:
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "first"
    link.symlink_to("second")
    (tmp_path / "bin" / "second").symlink_to(
        installed if target == "absolute" else os.path.relpath(installed, link.parent)
    )
    launcher = str(link) if invoked == "absolute" else "bin/first"
    result = run_hook(container.state(ASK), launcher=launcher, cwd=tmp_path)
    assert_granted(container, result)


def test_a_wrong_command_line(container: Scratch) -> None:
    result = run_hook(container.state(ASK), "--haeder", "x\ny")
    assert_failed(result, 2, "--header FILE", container=container)


def test_it_keeps_nothing_of_the_runtimes(container: Scratch) -> None:
    """No directory; and the child, which others may outlive, no standard stream either."""
    given: set[str] = set()
    held: dict[int, str] = {}
    directories: set[str] = set()

    def look(call: Call) -> None:
        if not call.child:
            given.update(fd for number, fd in fds(call.pid).items() if number < 3)
        elif call.pid == call.hook:
            directories.add(os.readlink(f"/proc/{call.pid}/cwd"))
        else:
            held.clear()
            held.update(fds(call.pid))

    assert_granted(container, trace(container.state(ASK), look, early=True).result)
    assert len(given) == 3
    assert not given & set(held.values())
    assert directories == {"/"}


KEEPS_OPEN = """
import os, sys
for _ in range(500):
    os.set_inheritable(os.open(sys.argv[1], os.O_RDONLY), True)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_what_it_inherits_is_closed(container: Scratch) -> None:
    """In both halves: an fd on a directory of the host's is a way out of a container."""
    theirs = str(container.outside)
    seen = 0

    def look(call: Call) -> None:
        nonlocal seen
        if call.child:
            seen += 1
            assert theirs not in fds(call.pid).values()

    command = (sys.executable, "-c", KEEPS_OPEN, theirs, str(LAUNCHER))
    assert_granted(container, trace(container.state(ASK), look, command=command).result)
    assert seen


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)], ids=str)
def test_nothing_becomes_a_standard_stream(container: Scratch, closed: tuple[int, ...]) -> None:
    """Not a file of ours, into which a message of ours would then go."""
    seen = 0

    def look(call: Call) -> None:
        nonlocal seen
        if call.pid == call.hook and call.child:
            seen += 1
            assert {fds(call.pid)[number] for number in closed} == {"/"}

    shell = f'exec "$@" {" ".join(f"{number}>&-" for number in closed)}'
    command = ("sh", "-c", shell, "sh", str(LAUNCHER))
    assert_granted(container, trace(container.state(ASK), look, command=command).result)
    assert seen
