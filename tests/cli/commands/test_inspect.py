"""`oci-bpf-hook inspect`, alias ps, as people and scripts call it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.errors import DONE, USAGE
from tests.support.engines import RUNTIMES, Runtime
from tests.support.places import ROOT
from tests.support.podman import World, started
from tests.support.policy import AUDIT
from tests.support.scratch import Scratch
from tests.support.situation import BPFFS, SOCKET, command, delegate, detached, workload
from tests.support.terminal import on_terminal

SCHEMA = json.loads((ROOT / "schema" / "inspect.schema.json").read_text())
INSPECT = (sys.executable, "-m", "oci_bpf_hook", "inspect")
MANY = SOCKET | {"delegate_maps": "hash:array:prog_array:percpu_hash:lru_hash"}


def inspect(*arguments: str, user: int | None = None) -> list[dict[str, Any]]:
    done = command("inspect", "--json", *arguments, user=user)
    assert (done.returncode, done.stderr) == (DONE, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    jsonschema.validate(found, SCHEMA)
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_podman_s(world: World, runtime: Runtime) -> None:
    with detached(world, "--cap-add=BPF", runtime=runtime) as name:
        (one,) = (one for one in inspect() if one["container"]["name"] == name)
        assert one["container"]["engine"] == "podman"
        assert one["delegated"] == SOCKET
        assert (one["path"], one["owner"], one["rule"]) == (BPFFS, 0, "everything")
        # Nobody has marked it.
        assert one["confined"] is False
        assert [text.partition(":")[0] for text in one["warnings"]] == ["reaches-beyond"]
        assert inspect(name) == [one]
        full = command("inspect", name).stdout
        assert full.startswith(f"{name}\n")
        assert "\n  rule     everything\n" in full
        assert f"\n  {BPFFS} not confined: programs reach the whole kernel\n" in full
        assert f"\n    delegate_cmds    {SOCKET['delegate_cmds']}\n" in full
        (row,) = (line for line in command("ps").stdout.splitlines() if name in line)
        assert row.split()[:6] == [name, "podman", BPFFS, "root", "everything", "no"]


def test_a_row() -> None:
    lists = MANY | {"delegate_progs": "xdp"}
    with workload(network=True, lists=lists) as (_, scratch):
        lines = command("inspect").stdout.splitlines()
        assert lines[0].split() == [
            *("CONTAINER", "ENGINE", "PATH", "OWNER", "RULE", "CONFINED", "DELEGATED", "WARNING")
        ]
        (row,) = (line for line in lines if line.startswith(f"pid {scratch.init.pid} "))
        assert "maps=hash:array:prog_array:+2 progs=xdp " in row
        assert row.endswith("  host-network, reaches-beyond")


def test_what_is_covered_is_there_still(world: World) -> None:
    with detached(world) as name:
        done = command("delegate", "--container", name, "--cmds=any", "--maps=any")
        assert done.returncode == DONE, done.stderr
        below, above = (one for one in inspect() if one["container"]["name"] == name)
        assert above["delegated"] == {"delegate_cmds": "any", "delegate_maps": "any"}
        assert (below["covered"], above["covered"]) == (True, False)
        assert inspect(name) == [below, above]
        assert "warning covered: another mount hides this bpffs; " in command("ps", name).stdout


def test_a_container_s_root_hides_nothing_below_a_mount() -> None:
    with workload() as (_, scratch):
        assert scratch.enter("mount", "-t", "tmpfs", "none", BPFFS).returncode == 0
        (row,) = (
            line
            for line in command("inspect").stdout.splitlines()
            if line.startswith(f"pid {scratch.init.pid} ")
        )
        assert row.endswith("  covered, reaches-beyond")


def test_a_container_s_root_hides_nothing_by_unmounting(world: World) -> None:
    """It may have a token, or the bpffs open; the audit trail says what was granted."""
    with detached(world, "--cap-add=BPF,SYS_ADMIN") as name:
        world.podman("exec", name, "umount", BPFFS)
        (one,) = (one for one in inspect() if one["container"]["name"] == name)
        assert (one["path"], one["delegated"], one["rule"]) == (BPFFS, SOCKET, "everything")
        assert [text.partition(":")[0] for text in one["warnings"]] == [
            *("unmounted", "reaches-beyond")
        ]
        assert one["confined"] is None
        assert inspect(name) == [one]


def test_a_container_that_was_started_anew_has_nothing_of_before(world: World) -> None:
    with started(world, "anew") as identity:
        for arguments in (("--cmds=any",), ("--revoke",)):
            assert command("delegate", "--container", "anew", *arguments).returncode == DONE
        world.podman("restart", "--time", "0", "anew")
        # As if that had been a while after: the trail has whole seconds.
        before = AUDIT.read_text()
        lines = [json.loads(line) for line in before.splitlines() if identity in line]
        assert len(lines) == 2
        old = (json.dumps(line | {"time": "2020-01-01T00:00:00Z"}) for line in lines)
        AUDIT.write_text("".join(f"{line}\n" for line in old))
        try:
            assert [one for one in inspect() if one["container"]["name"] == "anew"] == []
        finally:
            AUDIT.write_text(before)


def test_a_user_sees_their_own() -> None:
    user = ("setpriv", "--reuid=61998", "--regid=61998", "--clear-groups")
    with Scratch(prefix=user) as own, Scratch() as other:
        delegate(own.init.pid, SOCKET)
        delegate(other.init.pid, SOCKET)
        pids = {one["container"]["pid"] for one in inspect()}
        assert {own.init.pid, other.init.pid} <= pids
        # Its init was started before it had namespaces of its own, and is hidden from the user;
        # what is started in them isn't.
        with own.running("env") as process:
            seen = inspect(user=61998)
    assert [one["container"]["pid"] for one in seen] == [process.pid]
    assert seen[0]["owner"] == 61998
    assert command("inspect", user=61998).stdout == (
        "no container that we may look at has a delegation\n"
        "only root sees other users' containers\n"
    )


def test_html(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    with workload() as (_, scratch):
        done = command("inspect", "--html", str(path))
        assert (done.returncode, done.stdout, done.stderr) == (DONE, "", "")
        assert f"pid {scratch.init.pid}" in path.read_text()


def test_on_a_terminal() -> None:
    with workload() as (_, scratch):
        code, text = on_terminal(INSPECT, columns=160)
    assert code == DONE
    assert f"\x1b[1mpid {scratch.init.pid}" in text


@contextmanager
def watching(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*INSPECT, "--watch=0.05", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
    assert process.returncode == DONE


def until(process: subprocess.Popen[str], words: str) -> str:
    """The first line with the words in it; others' containers come and go meanwhile."""
    assert process.stdout
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"it ended without {words}")


def test_watch() -> None:
    with workload() as (_, first), watching() as process:
        line = until(process, f"+ pid {first.init.pid} ")
        assert line.endswith(
            "cmds=map_create:prog_load:btf_load maps=hash progs=socket_filter "
            "attachs=cgroup_inet_ingress\n"
        )
        with workload() as (_, second):
            until(process, f"+ pid {second.init.pid} ")
            label = second.init.pid
        until(process, f"- pid {label} ")


def test_watch_as_json() -> None:
    with watching("--json") as process, workload() as (_, scratch):
        found = json.loads(until(process, f'"pid": {scratch.init.pid}'))
        jsonschema.validate(found, SCHEMA)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-container",), "no running container is called"),
        (("--watch=-1",), "--watch takes 0 to 86400 seconds"),
        (("--watch=nan",), "--watch takes 0 to 86400 seconds"),
        (("--watch=inf",), "--watch takes 0 to 86400 seconds"),
        (("--watch", "1", "--html=x"), "can't be combined with NAME or --html"),
        (("--html=/does/not/exist",), "No such file or directory"),
    ],
)
def test_wrong_command_lines(arguments: tuple[str, ...], words: str) -> None:
    done = command("inspect", *arguments)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert words in done.stderr


def test_a_container_without_one(world: World) -> None:
    with started(world, "plain"):
        done = command("inspect", "plain")
    assert done.returncode == USAGE
    assert '"plain" has no delegation; oci-bpf-hook doctor says why' in done.stderr
