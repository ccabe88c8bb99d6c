"""A recording as a session: what is granted to the program, and when there is none."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.errors import KERNEL_CANNOT, NO_BROKER, REFUSED, USAGE
from oci_bpf_hook.resources import schema
from tests.support import places, recorder
from tests.support.policy import EVERYTHING, UNCONFINED, audited, in_force
from tests.support.recorder import calls, record
from tests.support.scratch import install

pytestmark = pytest.mark.usefixtures("nothing_stays")


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
