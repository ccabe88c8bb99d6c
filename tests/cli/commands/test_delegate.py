"""`oci-bpf-hook delegate`: real processes get delegations, others, and none any more."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.errors import (
    BAD_ANNOTATION,
    BAD_STATE,
    DONE,
    MOUNT_FAILED,
    NO_BROKER,
    NO_USER_NAMESPACE,
    REFUSED,
    UNKNOWN_NAME,
    USAGE,
)
from oci_bpf_hook.kernel import bpf
from tests.running.test_holders import HOLDS
from tests.support.conmon import WITHOUT_A_USER_NAMESPACE, impostor
from tests.support.engines import RUNTIMES, Runtime
from tests.support.places import ROOT
from tests.support.podman import World, started
from tests.support.policy import audited, in_force
from tests.support.scratch import Scratch, bpf_mounts, hooks_alive
from tests.support.situation import BPFFS, command, findings, not_well
from tests.support.users import BOB, appended, users

SCHEMA = json.loads((ROOT / "schema" / "delegate.schema.json").read_text())
XDP = ("--cmds=map_create,prog_load", "--maps=hash", "--progs=xdp", "--attachs=xdp")
SOCKET = ("--cmds=map_create,prog_load", "--maps=hash", "--progs=socket_filter", "--attachs=0x1")

# A scratch container shares the host's network, and of that doctor warns.
SHARED = {"host-network", "reaches-beyond"}


def delegate(pid: int, *arguments: str) -> dict[str, Any]:
    return delegate_to("--pid", str(pid), *arguments)


def delegate_to(*arguments: str) -> dict[str, Any]:
    done = command("delegate", "--json", *arguments)
    assert done.returncode == DONE, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(answer, SCHEMA)
    assert hooks_alive() == []
    return answer


def shown(pid: int) -> list[str]:
    """The delegations in the process's mounts, in the order of mounting."""
    lines = [line for line in bpf_mounts(pid) if f" {BPFFS} " in line]
    return [line.rpartition(",delegate_cmds=")[2] for line in lines]


def refused(code: int, words: str, *arguments: str) -> None:
    done = command("delegate", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr
    assert all(line.startswith("oci-bpf-hook: ") for line in done.stderr.splitlines())


def test_a_process_that_runs() -> None:
    with Scratch() as scratch:
        pid = scratch.init.pid
        answer = delegate(pid, *XDP)
        assert answer["outcome"] == "delegated"
        assert answer["granted"]["delegate_progs"] == "xdp"
        assert (answer["rule"], answer["covers"], answer["holders"]) == ("everything", [], [])
        assert answer["confined"] is False
        done = command("delegate", "--pid", str(pid), *XDP)
        assert "\nunconfined: the container is trusted with the kernel\n" in done.stdout
        assert set(not_well(findings("--pid", str(pid)))) == SHARED
        line = audited()[-1]
        assert line["container"] == f"pid-{pid}"
        assert line["granted"] == answer["granted"]
        assert line["requested"]["io.bpffs.delegate_progs"] == "xdp"
        # Just that again changes nothing.
        again = delegate(pid, *XDP)
        assert again["outcome"] == "already delegated"
        assert len(shown(pid)) == 1


def test_dry_run() -> None:
    with Scratch() as scratch:
        before = len(audited())
        answer = delegate(scratch.init.pid, "--dry-run", *XDP)
        assert answer["outcome"] == "would delegate"
        assert answer["granted"]["delegate_maps"] == "hash"
        assert shown(scratch.init.pid) == []
        assert len(audited()) == before


def test_over_an_existing_one() -> None:
    number = str(bpf.arch().bpf)
    with Scratch() as scratch:
        delegate(scratch.init.pid, *XDP)
        with scratch.running(sys.executable, "-IS", "-c", HOLDS, number) as process:
            answer = delegate(process.pid, *SOCKET)
            assert answer["outcome"] == "delegated"
            assert [one["delegate_progs"] for one in answer["covers"]] == ["xdp"]
            held = {(one["pid"], one["what"]) for one in answer["holders"]}
            assert held == {(process.pid, "token"), (process.pid, "directory")}
            # New tokens get the new masks; what was made keeps its own, says the kernel.
            allowed = [
                line
                for fd in Path(f"/proc/{process.pid}/fdinfo").iterdir()
                for line in fd.read_text().splitlines()
                if line.startswith("allowed_progs:")
            ]
            assert allowed == ["allowed_progs:\t0x40"]
        words = command("delegate", "--pid", str(scratch.init.pid), *XDP).stdout
        assert "new tokens get what is mounted now" in words
        assert "a remount would change nothing" in words
        # Ours is the topmost, of a bpffs of its own.
        assert "delegate_progs=xdp" in shown(scratch.init.pid)[-1]
        assert len(shown(scratch.init.pid)) == 3


def test_revoke() -> None:
    number = str(bpf.arch().bpf)
    with Scratch() as scratch:
        pid = scratch.init.pid
        delegate(pid, *XDP)
        with scratch.running(sys.executable, "-IS", "-c", HOLDS, number) as process:
            answer = delegate(pid, "--revoke", "--dry-run")
            assert answer["outcome"] == "would revoke"
            assert len(shown(pid)) == 1
            answer = delegate(pid, "--revoke")
            assert (answer["outcome"], answer["paths"]) == ("revoked", [BPFFS])
            assert {one["pid"] for one in answer["holders"]} == {process.pid}
            assert answer["uncoverable"]
        assert set(not_well(findings("--pid", str(pid)))) == {"masks-empty"}
        assert (audited()[-1]["outcome"], audited()[-1]["granted"]) == ("revoked", None)
        assert delegate(pid, "--revoke")["outcome"] == "already revoked"
        # And again, over the cover.
        assert delegate(pid, *XDP)["outcome"] == "delegated"
        assert set(not_well(findings("--pid", str(pid)))) == SHARED


def test_revoke_what_lies_below_another() -> None:
    """Tokens of a bpffs that was covered by a newer one are still there."""
    number = str(bpf.arch().bpf)
    with Scratch() as scratch:
        pid = scratch.init.pid
        delegate(pid, *XDP)
        with scratch.running(sys.executable, "-IS", "-c", HOLDS, number) as process:
            answer = delegate(pid, *SOCKET)
            assert {one["pid"] for one in answer["holders"]} == {process.pid}
            for outcome in ("revoked", "already revoked"):
                answer = delegate(pid, "--revoke")
                assert (answer["outcome"], answer["paths"]) == (outcome, [BPFFS])
                assert {one["pid"] for one in answer["holders"]} == {process.pid}
        assert delegate(pid, "--revoke")["holders"] == []


def test_revoke_one_that_is_bound_elsewhere() -> None:
    with Scratch() as scratch:
        pid, other = scratch.init.pid, str(scratch.root / "opt")
        delegate(pid, *XDP)
        assert scratch.enter("mount", "--bind", BPFFS, other).returncode == 0
        assert delegate(pid, "--revoke", "--path", BPFFS)["in_reach"] == [other]
        answer = delegate(pid, "--revoke")
        assert (answer["paths"], answer["in_reach"]) == ([other], [])


def test_revoke_where_no_path_leads() -> None:
    """One that can't be covered keeps no other from being so."""
    deep = (
        "import ctypes, os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    os.mkdir('x' * 250)\n"
        "    os.chdir('x' * 250)\n"
        f"assert ctypes.CDLL(None).mount({BPFFS.encode()!r}, b'.', None, 4096, None) == 0\n"
    )
    with Scratch() as scratch:
        pid = scratch.init.pid
        delegate(pid, *XDP)
        done = scratch.enter(sys.executable, "-IS", "-c", deep, str(scratch.root / "opt"))
        assert done.returncode == 0, done.stderr
        done = command("delegate", "--pid", str(pid), "--revoke", "--json")
        assert (done.returncode, done.stderr) == (MOUNT_FAILED, "")
        answer = json.loads(done.stdout)
        jsonschema.validate(answer, SCHEMA)
        assert "File name too long" in answer["failed"][0]
        (left,) = answer["in_reach"]
        assert len(left) > 5000
        assert set(not_well(findings("--pid", str(pid)))) == {"token-path"}


def test_without_cap_bpf() -> None:
    """It is delegated, and of no use."""
    with Scratch() as scratch:
        assert not delegate(scratch.init.pid, *XDP)["unusable"]
        with scratch.running("setpriv", "--bounding-set=-bpf") as process:
            done = command("delegate", "--pid", str(process.pid), *SOCKET)
            assert "start the container with --cap-add BPF" in done.stdout


def test_revoke_one_of_two() -> None:
    with Scratch() as scratch:
        pid, other = scratch.init.pid, str(scratch.root / "opt")
        delegate(pid, *XDP)
        delegate(pid, *XDP, "--path", other)
        refused(
            USAGE, 'has nothing delegated at "/proc"', "--pid", str(pid), "--revoke", "--path=/proc"
        )
        assert delegate(pid, "--revoke", "--path", other)["paths"] == [other]
        assert delegate(pid, "--revoke")["paths"] == [BPFFS]


def test_a_cover_can_be_taken_off_by_who_may_mount() -> None:
    """What the command says of CAP_SYS_ADMIN is so."""
    with Scratch() as scratch:
        delegate(scratch.init.pid, *XDP)
        words = command("delegate", "--pid", str(scratch.init.pid), "--revoke").stdout
        assert "whoever has CAP_SYS_ADMIN in this container can unmount the cover" in words
        assert scratch.enter("umount", BPFFS).returncode == 0
        assert set(not_well(findings("--pid", str(scratch.init.pid)))) == SHARED


def test_the_policy_decides() -> None:
    with in_force(None), Scratch() as scratch:
        pid = str(scratch.init.pid)
        refused(REFUSED, 'delegate_progs "kprobe"', "--pid", pid, *XDP[:2], "--progs=kprobe")
        line = audited()[-1]
        assert (line["outcome"], line["code"]) == ("refused", REFUSED)
        assert line["requester"]["host_network"] is True
        assert bpf_mounts(scratch.init.pid) == bpf_mounts()


def test_profiles() -> None:
    text = (
        "version: 1\nprofiles:\n  mine: {delegate_cmds: [map_create], delegate_maps: [array]}\n"
        "rules:\n- name: mine-only\n  allow: {profiles: [mine]}\n"
    )
    with in_force(text), Scratch() as scratch:
        answer = delegate(scratch.init.pid, "--profile", "mine")
        assert (answer["rule"], answer["granted"]["delegate_maps"]) == ("mine-only", "array")


def test_rules_on_who_it_is() -> None:
    text = (
        "version: 1\nrules:\n"
        "- {name: users, match: {user: 61999}, allow: {delegate_cmds: [any]}}\n"
        "- {name: nobody-else, deny: not for you}\n"
    )
    with in_force(text), Scratch() as scratch:
        refused(REFUSED, "not for you", "--pid", str(scratch.init.pid), "--cmds=map_create")
        assert audited()[-1]["requester"]["user"] == 0
    nobodys = ("setpriv", "--reuid=61999", "--regid=61999", "--clear-groups")
    with in_force(text), Scratch(prefix=nobodys) as scratch:
        answer = delegate(scratch.init.pid, "--cmds=map_create")
        assert (answer["rule"], answer["container"]["user"]) == ("users", 61999)
        words = command("delegate", "--pid", str(scratch.init.pid), "--cmds=map_create").stdout
        assert "this container is 61999's own" in words
        assert audited()[-1]["requester"] == {
            **dict.fromkeys(("container", "image", "namespace", "pod")),
            "user": 61999,
            "group": [],
            "rootless": True,
            "host_network": True,
            "host_cgroup": True,
        }


OF_WEB = (
    "version: 1\nengine: podman\nrules:\n"
    "- {name: web, match: {container: web}, allow: {delegate_cmds: [any]}}\n"
)


@pytest.mark.parametrize("prefix", WITHOUT_A_USER_NAMESPACE, ids=["host-pids", "own-pids"])
def test_a_name_that_a_container_gives_itself(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    """It has no user namespace, and has a process look like a container of that name."""
    words = ("-n", "web", "-c", os.urandom(32).hex(), "-r", "/usr/bin/crun", "libpod")
    with in_force(OF_WEB), impostor(tmp_path, words, prefix) as child:
        refused(USAGE, "no running container is called", "--container=web", "--cmds=map_create")
        refused(REFUSED, "no rule of the policy", "--pid", str(child), "--cmds=map_create")
        assert audited()[-1]["requester"]["container"] is None


@pytest.mark.parametrize("subuid", [[], [f"{BOB.name}:100000:65536"]], ids=["root-s", "bob-s"])
def test_a_name_that_root_s_engine_gives(world: World, subuid: list[str]) -> None:
    """It is believed whosever ids the container has; that they are root's isn't."""
    with (
        users(),
        appended(Path("/etc/subuid"), subuid),
        in_force(OF_WEB),
        started(world, "web"),
    ):
        answer = delegate_to("--container=web", "--cmds=map_create")
        asked = audited()[-1]["requester"]
        user = BOB.uid if subuid else 0
        assert (answer["rule"], answer["container"]["user"]) == ("web", user)
        assert (asked["container"], asked["user"], asked["rootless"]) == ("web", user, user != 0)


@pytest.mark.parametrize(
    ("code", "words", "arguments"),
    [
        (USAGE, "one of the arguments", ("--cmds=any",)),
        (USAGE, "not allowed with", ("--pid=1", "--container=x", "--cmds=any")),
        (USAGE, "no running container is called", ("--container=no-such", "--cmds=any")),
        (USAGE, "--pid 0 isn't a process id", ("--pid=0", "--cmds=any")),
        (USAGE, "--pid -5 isn't a process id", ("--pid=-5", "--cmds=any")),
        (BAD_STATE, "can't be looked at", ("--pid=2147483647", "--cmds=any")),
        (
            USAGE,
            "--revoke can't be combined with something to delegate",
            ("--pid=1", "--revoke", "--cmds=any"),
        ),
        (NO_USER_NAMESPACE, "no user namespace of its own", ("--pid=self", "--cmds=any")),
        (USAGE, "nothing is asked for", ("--pid=scratch",)),
        (UNKNOWN_NAME, "map_crate", ("--pid=scratch", "--cmds=map_crate")),
        (BAD_ANNOTATION, "io.bpffs.path", ("--pid=scratch", "--cmds=any", "--path=run")),
        (USAGE, "removes all of its own items", ("--pid=scratch", "--cmds=map_create,!map_create")),
    ],
)
def test_wrong_command_lines(code: int, words: str, arguments: tuple[str, ...]) -> None:
    with Scratch() as scratch:
        pids = {"self": os.getpid(), "scratch": scratch.init.pid}
        given = [
            f"--pid={pids.get(text.removeprefix('--pid='), text.removeprefix('--pid='))}"
            if text.startswith("--pid=")
            else text
            for text in arguments
        ]
        done = command("delegate", *given)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert shown(scratch.init.pid) == []


def test_as_a_user() -> None:
    done = command("delegate", "--pid=1", "--cmds=any", user=65534)
    assert done.returncode == NO_BROKER
    assert "needs root" in done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_container_of_podman_s(world: World, runtime: Runtime) -> None:
    with started(world, "runs-already", runtime) as identity:
        done = command("delegate", "--container", "runs-already", *XDP)
        assert done.returncode == DONE, done.stderr
        line = audited()[-1]
        assert (line["container"], line["engine"]) == (identity, "podman")
        assert line["requester"]["container"] == "runs-already"
        told = world.podman("exec", "runs-already", "cat", "/proc/mounts")
        assert " /sys/fs/bpf bpf " in told.stdout
