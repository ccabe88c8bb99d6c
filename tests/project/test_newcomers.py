"""The page for newcomers: every line that it has to paste is run, as it stands there."""

import json
import os
import re
import signal
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.docs import BLOCKS, PAGES, has_test, section
from tests.support.engines import RUNTIMES, Runtime, build_probe
from tests.support.packages import fresh, run
from tests.support.places import ROOT
from tests.support.podman import World
from tests.support.policy import POLICY
from tests.support.users import ALICE, User, users

# What the line of the page means, without a systemd that runs as pid 1.
_SYSTEMCTL = """#!/bin/sh -eu
[ "$*" = "enable --now oci-bpf-hook-broker.socket" ]
socket=$(sed -n 's/^ListenSequentialPacket=//p' {units}.socket)
mkdir -p "$(dirname "$socket")"
rm -f "$socket"
systemd-socket-activate --seqpacket --listen "$socket" \\
    $(sed -n 's/^ExecStart=//p' {units}.service) </dev/null >/dev/null 2>&1 &
echo $! > {pid}
while ! [ -S "$socket" ]; do sleep 0.01; done
chmod "$(sed -n 's/^SocketMode=//p' {units}.socket)" "$socket"
"""
PID = Path("/run/socket-activate.pid")
STARTING = "docs/getting-started.md"
ENGINES = "docs/engines.md"
IMAGE = "registry.example/bpf-agent"
# What the image does: it makes a token and loads a socket filter with it.
PROBE = ["sh", "-c", "cat /proc/mounts; probe prog /sys/fs/bpf 1"]


FIRST = "First of all"


def page() -> dict[str, list[tuple[str, str]]]:
    """The blocks to paste below each heading: who is to paste them, and the lines."""
    found: dict[str, list[tuple[str, str]]] = {}
    for block in BLOCKS:
        if block.page == STARTING:
            who = "user" if "as the user" in block.said else "root"
            found.setdefault(block.heading, []).append((who, block.text))
    return found


PAGE = page()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A host without the hook, with podman as Debian configures it but for its places."""
    with fresh(tmp_path):
        # What newcomers have: the built-in policy, until the page has them write one.
        POLICY.unlink()
        yield tmp_path


@contextmanager
def podman(user: User | None = None) -> Iterator[World]:
    """podman with our image, and nothing that a newcomer would have to configure."""
    with World(user) as world:
        conf = world.directory / "containers.conf"
        text = re.sub("(?m)^(hooks_dir|seccomp_profile).*\n", "", conf.read_text())
        # Whose cgroups would stay.
        conf.write_text(text.replace("[containers]\n", '[containers]\ncgroups = "disabled"\n'))
        archive = f"{world.directory}/image.tar"
        world.podman("import", "--quiet", "--change", f"CMD {json.dumps(PROBE)}", archive, IMAGE)
        yield world


def paste(heading: str, world: World | None = None, who: str = "root") -> str:
    """Run the blocks of that heading that are for `who`; what they print."""
    if who == "root":
        first(heading)
    said = ""
    for whose, lines in PAGE[heading]:
        if whose == who:
            done = run_lines(lines, world)
            assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
            said += done.stdout
    return said


def run_lines(
    lines: str, world: World | None = None, *, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    command = [*prefix, "sh", "-euc", lines]
    return subprocess.run(
        world.user.running(command) if world and world.user else command,
        cwd=ROOT,
        env=environment | (world.environment if world else {}),
        capture_output=True,
        text=True,
        check=False,
    )


def first(heading: str) -> None:
    """What is to be pasted first, on a host that can't have the guard: a rule for who it is then.

    The guard would be this host's, and no namespace's: it is turned on in virtual machines alone.
    """
    (_, install), (_, guard), (_, rule) = PAGE[FIRST]
    assert run_lines(install).returncode == 0
    done = run_lines(guard, prefix=("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin"))
    assert done.returncode != 0
    assert done.stderr.startswith("oci-bpf-hook: "), done.stderr
    for who in re.findall(r"`who='([^']+)'`", " ".join(section(STARTING, heading).split())):
        rule = re.sub("^who=.*", f"who='{who.replace('alice', ALICE.name)}'", rule)
    done = run_lines(rule)
    assert done.returncode == 0, done.stderr
    assert run("oci-bpf-hook", "policy", "check").endswith("4 rules, of which 1 unconfined\n")


@contextmanager
def systemd() -> Iterator[None]:
    """systemctl for the broker's socket, by the program that systemd has for trying such units."""
    units = "/usr/lib/systemd/system/oci-bpf-hook-broker"
    Path("/usr/local/bin/systemctl").write_text(_SYSTEMCTL.format(units=units, pid=PID))
    Path("/usr/local/bin/systemctl").chmod(0o755)
    try:
        yield
    finally:
        os.kill(int(PID.read_text()), signal.SIGTERM)


@contextmanager
def at_srv(directory: Path) -> Iterator[None]:
    """`directory` is /srv/bundle as well."""
    run("mount", "-t", "tmpfs", "tmpfs", "/srv")
    try:
        Path("/srv/bundle").mkdir()
        run("mount", "--bind", str(directory), "/srv/bundle")
        yield
    finally:
        run("umount", "--recursive", "/srv")


def tokens(said: str) -> list[str]:
    """What came of each token that was made."""
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return [one["result"] or one["token"] for one in found]


def test_every_block_is_run() -> None:
    text = Path(__file__).read_text()
    assert PAGE[FIRST][1] == ("root", "oci-bpf-hook guard on\n")
    for heading, blocks in PAGE.items():
        assert blocks, heading
        if heading == FIRST:  # Each of the others begins with it.
            continue
        assert f'paste("{heading}"' in text, heading
        if "user" in [who for who, _ in blocks]:
            assert f'paste("{heading}", world, "user")' in text, heading


def test_podman(host: Path) -> None:
    with podman() as world:
        assert tokens(paste("podman", world)) == ["ok"]


def test_podman_and_an_annotation(host: Path) -> None:
    with podman() as world:
        # What is configured is configured where a drop-in is looked for.
        conf = Path(world.environment["CONTAINERS_CONF"])
        Path("/etc/containers/containers.conf").write_text(conf.read_text())
        world.environment["CONTAINERS_CONF"] = ""
        assert tokens(paste("podman, and an annotation is enough", world)) == ["ok"]


def test_podman_without_root(host: Path) -> None:
    with users(), podman(ALICE) as world, systemd():
        paste("podman without root")
        assert tokens(paste("podman without root", world, "user")) == ["ok"]


def test_a_device(host: Path) -> None:
    with podman() as world:
        assert tokens(paste("A device instead of annotations", world)) == ["ok"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_alone(host: Path, runtime: Runtime) -> None:
    bundle = Bundle(probe=build_probe(host / "probe"), command=PROBE, capabilities=())
    with bundle, at_srv(bundle.directory):
        (bundle.directory / "config.json").write_text(json.dumps(bundle.config))
        paste("runc or crun alone")
        bundle.config = json.loads((bundle.directory / "config.json").read_text())
        assert tokens(bundle.run(runtime).stdout) == ["ok"]


def test_crio(host: Path) -> None:
    # As its package has it.
    drop_ins = Path("/etc/crio/crio.conf.d")
    drop_ins.mkdir(parents=True)
    paste("CRI-O")
    (drop_in,) = drop_ins.iterdir()
    (hooks_dir,) = tomllib.loads(drop_in.read_text())["crio"]["runtime"]["hooks_dir"]
    (registered,) = Path(hooks_dir).iterdir()
    assert engine_of(json.loads(registered.read_text())["hook"]) == "cri-o"


@pytest.mark.parametrize("version", [2, 3])
def test_containerd(host: Path, version: int) -> None:
    # As packages have it: Debian's has 2, and containerd's own default is 3.
    Path("/etc/containerd").mkdir()
    Path("/etc/containerd/config.toml").write_text(f"version = {version}\n")
    paste("containerd")
    (drop_in,) = Path("/etc/containerd/conf.d").iterdir()
    assert tomllib.loads(drop_in.read_text())["version"] == version
    (registered,) = Path("/usr/share/containers/oci/hooks.d").iterdir()
    assert engine_of(json.loads(registered.read_text())["hook"]) == "containerd"


def test_docker(host: Path) -> None:
    Path("/etc/docker").mkdir()
    paste("Docker")
    assert json.loads(Path("/etc/docker/daemon.json").read_text())["features"] == {"cdi": True}
    devices = json.loads(Path("/etc/cdi/bpffs.io-profile.json").read_text())["devices"]
    for device in devices:
        assert engine_of(device["containerEdits"]["hooks"][0]) == "docker"
    done = run_lines("oci-bpf-hook cdi check --json")
    found = json.loads(done.stdout)
    assert len(found["devices"]) == 6
    # A rule about a device is one about all; without the guard it trusts whoever has this one.
    assert [one for one in found["problems"] if "socket-filter" in one] == []


def engine_of(hook: dict[str, Any]) -> str:
    """What a registered hook is told, which is there."""
    assert os.access(hook["path"], os.X_OK)
    args: list[str] = hook["args"]
    return args[args.index("--engine") + 1]


# ---- which engine can what ---------------------------------------------------------------------


def test_each_cell_is_a_test() -> None:
    rows = cells_of(section(ENGINES, "The tests that show it"))
    assert len(rows) > 5
    for _engine, *cells in rows[1:]:
        for cell in cells:
            assert cell in ("-", "by configuration") or has_test(cell), cell


def test_the_table_for_people_says_what_the_tests_show() -> None:
    words = {"-": "no", "by configuration": "not run"}
    shown, tests = (
        cells_of(text)
        for text in (
            PAGES[ENGINES].partition("\n## ")[0],
            section(ENGINES, "The tests that show it"),
        )
    )
    assert shown[0] == tests[0]
    for (engine, *said), (same, *cells) in zip(shown[1:], tests[1:], strict=True):
        assert engine == same
        assert [one.partition(",")[0] for one in said] == [words.get(one, "yes") for one in cells]


def cells_of(text: str) -> list[list[str]]:
    """The cells of the table in `text`, but for the line below its head."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
