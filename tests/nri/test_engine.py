"""Which process the engine is, by the kernel's word."""

import subprocess
import sys
from pathlib import Path

from tests.support.places import ROOT

# In a pid namespace of its own: a process listens and ends, and another one gets its pid, while
# somebody else still has the socket.
REUSED = """
import os, signal, socket, sys
from oci_bpf_hook.errors import HookError
from oci_bpf_hook.nri.engine import Engine
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
first = os.fork()
if not first:
    listening.listen()
    os._exit(0)
os.waitpid(first, 0)
with open("/proc/sys/kernel/ns_last_pid", "w") as file:
    file.write(str(first - 1))
second = os.fork()
if not second:
    signal.pause()
assert second == first, (first, second)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    before = os.listdir("/proc/self/fd")
    try:
        Engine(sock)
        print("believed")
    except HookError as error:
        print(error)
    assert os.listdir("/proc/self/fd") == before
os.kill(second, signal.SIGKILL)
"""


def test_a_pid_that_is_anothers_by_now(tmp_path: Path) -> None:
    alone = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    done = subprocess.run(
        [*alone, sys.executable, "-c", REUSED, str(tmp_path / "nri.sock")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "has ended" in done.stdout or "which process the engine is" in done.stdout, done.stdout
