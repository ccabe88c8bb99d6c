"""container/podman.py: podman's name for a container, from real processes that look like conmon."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

IDENTITY = "3d53622ca6d670c9ea9f212cd254e9b94fafddaf864b0b9bc89d107049c0196e"
# As podman 4.3.1 starts it, from /proc.
CONMON = [
    *("--api-version", "1", "-c", IDENTITY, "-u", IDENTITY, "-r", "/usr/bin/crun"),
    *("-b", f"/var/lib/containers/storage/overlay-containers/{IDENTITY}/userdata"),
    *("-p", "/run/containers/storage/pidfile", "-n", "web", "--exit-dir", "/run/libpod/exits"),
    *("--full-attach", "-s", "-l", "journald", "--log-level", "warning", "--syslog"),
    *("--runtime-arg", "--log-format=json", "--conmon-pidfile", "/run/conmon.pid"),
    *("--exit-command", "/usr/bin/podman", "--exit-command-arg", "--root"),
    *("--exit-command-arg", "/var/lib/containers/storage", "--exit-command-arg", "container"),
    *("--exit-command-arg", "cleanup", "--exit-command-arg", IDENTITY),
]
# Runs what comes next in the environment, as conmon runs a runtime and that a hook.
# conmon is whose the environment says, and what it runs is root's again, as by sudo(8).
_PARENT = """
import json, os, subprocess, sys
rest = json.loads(os.environ.pop("REST"))
if rest:
    os.environ["REST"] = json.dumps(rest[1:])
    if sys.orig_argv[0].endswith("conmon"):
        user = int(os.environ["USER_ID"])
        os.setresuid(user, user, 0)
    again = lambda: os.setresuid(0, 0, 0)
    subprocess.run(rest[0][1:], executable=rest[0][0], check=True, preexec_fn=again)
else:
    # Not PYTHONPATH: the path of a checkout may have a colon in it.
    sys.path.insert(0, os.environ["ROOT"])
    from oci_bpf_hook.container.podman import container_name
    print(ascii(container_name(os.environ["IDENTITY"])))
"""


class Tree:
    """Real processes, each the parent of the next, the last one asking for its container's name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.script = directory / "parent.py"
        self.script.write_text(_PARENT)

    def process(self, name: str, *arguments: str | bytes, command: str = "python3") -> list[str]:
        """A process with `name` for argv[0]; `command` is what /proc/PID/stat calls it."""
        executable = self.directory / command
        if not executable.exists():
            executable.symlink_to("/usr/bin/python3")
        return [str(executable), name, str(self.script), *map(os.fsdecode, arguments)]

    def name(self, *processes: list[str], identity: str = IDENTITY, user: int = 0) -> object:
        tree = [*processes, self.process("/usr/bin/python3")]
        result = subprocess.run(
            [sys.executable, str(self.script)],
            env={
                "REST": json.dumps(tree),
                "IDENTITY": identity,
                "ROOT": str(ROOT),
                "USER_ID": str(user),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        found: object = eval(result.stdout, {"__builtins__": {}})
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_conmon_knows_the_name(tree: Tree) -> None:
    conmon = tree.process("/usr/bin/conmon", *CONMON)
    runtime = tree.process("/usr/bin/crun", "create", IDENTITY)
    assert tree.name(conmon, runtime) == "web"
    assert tree.name(conmon) == "web"
    # crun and runc fork on their way to the hook.
    assert tree.name(conmon, runtime, runtime, runtime) == "web"
    assert tree.name(tree.process("conmon", *CONMON), runtime) == "web"


def test_conmon_further_away_is_not_ours(tree: Tree) -> None:
    conmon = tree.process("/usr/bin/conmon", *CONMON)
    runtime = tree.process("/usr/bin/crun")
    assert tree.name(conmon, runtime, runtime, runtime, runtime) is None


def test_conmon_of_another_container(tree: Tree) -> None:
    # A container in a container: the next conmon up is the outer one's.
    other = tree.process("/usr/bin/conmon", *(word.replace("3d53", "4e64") for word in CONMON))
    conmon = tree.process("/usr/bin/conmon", *CONMON)
    assert tree.name(other) is None
    assert tree.name(conmon, other) is None
    assert tree.name(conmon, identity=IDENTITY[:12]) is None
    assert tree.name(other, conmon) == "web"


def test_without_conmon_there_is_no_name(tree: Tree) -> None:
    assert tree.name() is None
    assert tree.name(tree.process("/usr/bin/containerd-shim", *CONMON)) is None
    for name in ("conmonrs", "myconmon", "/usr/bin/conmon.x", "", "conmon "):
        assert tree.name(tree.process(name, *CONMON)) is None


def test_conmon_of_a_user_s_is_none_of_root_s(tree: Tree) -> None:
    """Who calls root's engine, by sudo(8) say, may have any name."""
    conmon = tree.process("/usr/bin/conmon", *CONMON)
    runtime = tree.process("/usr/bin/crun", "create", IDENTITY)
    assert tree.name(conmon, runtime) == "web"
    assert tree.name(conmon, runtime, user=61996) is None


def test_conmon_without_a_name(tree: Tree) -> None:
    place = CONMON.index("-n")
    assert tree.name(tree.process("conmon", *CONMON[:place], *CONMON[place + 2 :])) is None
    assert tree.name(tree.process("conmon", *CONMON[:place], "-n", "")) is None
    assert tree.name(tree.process("conmon", *CONMON[:place], "-n")) is None
    assert tree.name(tree.process("conmon", "-n", "web")) is None


@pytest.mark.parametrize("option", ["-n", "-c"])
def test_a_word_that_looks_like_an_option(tree: Tree, option: str) -> None:
    """podman run --log-opt tag=-n: it comes behind podman's own."""
    conmon = tree.process("conmon", *CONMON, "--log-tag", option, "monitoring")
    assert tree.name(conmon) == "web"


def test_a_name_that_is_no_utf_8(tree: Tree) -> None:
    place = CONMON.index("web")
    conmon = tree.process("conmon", *CONMON[:place], b"w\xffb", *CONMON[place + 1 :])
    assert tree.name(conmon) == "w\ufffdb"


def test_a_command_line_without_end_is_not_read(tree: Tree) -> None:
    conmon = tree.process("conmon", *CONMON, *["x" * 10_000] * 8)
    assert tree.name(conmon) is None


def test_processes_with_hostile_names(tree: Tree) -> None:
    # /proc/PID/stat has the name in parentheses, as it is.
    conmon = tree.process("conmon", *CONMON, command="c) S 1 (x")
    for command in ("a b", ") 1 (", "x) S 1 1 1", "\n) S 1\n", "((((("):
        runtime = tree.process("crun", command=command)
        assert tree.name(conmon, runtime) == "web"
