"""The demonstrations: what somebody who has just cloned this sees first."""

import subprocess
from collections.abc import Sequence

import pytest

from tests.demo import ATTEMPTS
from tests.support.scratch import LAUNCHER

DEMOS = ("tests.demo", "tests.demo_rootless")


def run(module: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    # -B: for whoever may write nothing there, and to leave nothing.
    command = [*prefix, "/usr/bin/python3", "-B", "-m", module]
    return subprocess.run(
        command, cwd=LAUNCHER.parents[1], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("module", DEMOS)
def test_it_shows_what_it_says(module: str) -> None:
    done = run(module)
    assert (done.returncode, done.stderr) == (0, "")
    # On crun and on runc.
    assert done.stdout.count("bpf on /sys/fs/bpf type bpf (rw,nosuid,nodev,noexec,") == 2
    for what, _, _, result in ATTEMPTS:
        assert done.stdout.count(f"  {what:24} {result}\n") == 2
    assert "\n  oci-bpf-hook: " in done.stdout
    # What is in force is shown, and what that means.
    guarded = "the guard is in force" in done.stdout or "confined: true" in done.stdout
    assert guarded is not ("Tokens can't be confined here: " in done.stdout)
    assert guarded is not ("confined: false\n" in done.stdout)


@pytest.mark.parametrize("module", DEMOS)
def test_it_takes_root(module: str) -> None:
    # Root without what it takes: no other user may be able to read the checkout.
    done = run(module, ("setpriv", "--bounding-set=-sys_admin", "--"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "this takes root, with CAP_SYS_ADMIN: it mounts and runs containers\n"
