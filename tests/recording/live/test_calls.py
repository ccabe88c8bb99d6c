"""Real programs whose calls are known, recorded: each call is written down as it was made."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.kernel import bpf
from oci_bpf_hook.resources import schema
from tests.support import recorder
from tests.support.recorder import calls, record

pytestmark = pytest.mark.usefixtures("nothing_stays")


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
