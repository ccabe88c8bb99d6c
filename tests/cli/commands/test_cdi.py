"""`oci-bpf-hook cdi`: devices of profiles, what they give, and what is wrong with a file."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.errors import BAD_STATE, DONE, REFUSED, UNKNOWN_NAME, USAGE
from tests.support.command import command
from tests.support.places import ROOT
from tests.support.policy import in_force
from tests.support.scratch import LAUNCHER, install

FILE = "bpffs.io-profile.json"
CONFINED = ["cgroup-network", "own-sockets", "sk-lookup", "socket-filter", "tc", "xdp"]
POLICY = """\
version: 1
profiles:
  mine: {delegate_cmds: [map_create], delegate_maps: [hash]}
  part: {delegate_maps: [array]}
  odd-: {delegate_cmds: [map_create]}
rules:
- name: no-devices
  match: {cdi: min*}
  deny: ask the platform team
"""


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(None):
        yield


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that nobody but root can write, as those above it: /tmp isn't."""
    path = Path("/etc/cdi")
    subprocess.run(["rm", "-rf", path], check=True)
    subprocess.run(["mkdir", "-m", "0755", path], check=True)
    yield path
    subprocess.run(["rm", "-r", path], check=True)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def names(text: str) -> list[str]:
    data = json.loads(text)
    jsonschema.validate(data, json.loads((ROOT / "schema" / "cdi.schema.json").read_text()))
    return [device["name"] for device in data["devices"]]


def test_all_that_a_confined_token_can_use() -> None:
    done = command("cdi", "generate", "--output", "-")
    assert (done.returncode, names(done.stdout)) == (DONE, CONFINED)
    for name in ("tracing", "struct-ops-tcp"):
        assert f"a confined token can't use the profile {name}, which is left out" in done.stderr
    assert done.stderr.count("\n") == 2


def test_what_is_named() -> None:
    arguments = ("--profile", "tracing", "--profile", "xdp")
    done = command("cdi", "generate", "--output", "-", *arguments)
    assert (done.returncode, names(done.stdout), done.stderr) == (DONE, ["tracing", "xdp"], "")


def test_another_policy(policy: Path) -> None:
    """Not a profile that is a part of others, nor one whose name can't be a device's."""
    done = command("cdi", "generate", "--output", "-", "--policy", policy)
    assert names(done.stdout) == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--profile", "xpd"), UNKNOWN_NAME, 'no profile "xpd"; did you mean "xdp"?'),
        (("--path", "run/bpf"), USAGE, '"run/bpf" isn\'t an absolute path'),
        (("--hook", "oci-bpf-hook"), USAGE, "isn't an absolute path"),
        (("--engine", "rkt"), USAGE, "invalid choice"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = command("cdi", "generate", "--output", "-", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr


def test_a_name_that_is_none_of_cdi_s(policy: Path) -> None:
    arguments = ("--policy", policy, "--profile", "odd-")
    done = command("cdi", "generate", "--output", "-", *arguments)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "\"odd-\" can't be a CDI device's name" in done.stderr


def test_no_profile_for_a_confined_token(tmp_path: Path) -> None:
    text = "version: 1\nprofiles: {all: {delegate_cmds: [any], delegate_progs: [any]}}\nrules: []\n"
    (tmp_path / "policy.yaml").write_text(text)
    done = command("cdi", "generate", "--output", "-", "--policy", tmp_path / "policy.yaml")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "give --profile NAME" in done.stderr


def test_it_is_written_once(directory: Path) -> None:
    done = command("cdi", "generate")
    assert done.stdout == "write /etc/cdi/bpffs.io-profile.json (0644)\n"
    assert names((directory / "bpffs.io-profile.json").read_text()) == CONFINED
    assert command("cdi", "generate").stdout == ""
    assert [path.name for path in directory.iterdir()] == ["bpffs.io-profile.json"]


def test_a_directory_that_others_can_write(directory: Path) -> None:
    """To guard it isn't ours to do, but a hook in there runs as root, and we say so."""
    directory.chmod(0o777)
    done = command("cdi", "generate")
    assert done.returncode == USAGE
    assert "others than root can write /etc/cdi" in done.stderr
    assert list(directory.iterdir()) == []
    directory.chmod(0o755)
    command("cdi", "generate")
    directory.chmod(0o777)
    done = command("cdi", "check")
    assert done.returncode == USAGE
    assert "others than root can write /etc/cdi" in done.stderr


def test_list(directory: Path, policy: Path) -> None:
    command("cdi", "generate", "--path", "/run/bpf")
    done = command("cdi", "list", "--json")
    found = json.loads(done.stdout)
    jsonschema.validate(found, json.loads((ROOT / "schema" / "cdi-list.schema.json").read_text()))
    assert [one["device"] for one in found] == [f"bpffs.io/profile={name}" for name in CONFINED]
    assert {one["path"] for one in found} == {"/run/bpf"}
    assert found[-1]["rule"] == "cdi:xdp"
    assert {one["confined"] for one in found} == {True}
    assert found[-1]["granted"]["delegate_progs"] == "socket_filter:xdp"
    text = command("cdi", "list").stdout
    assert text.splitlines()[0].split() == ["DEVICE", "BY", "CONFINED", "GIVES"]
    command("cdi", "generate", "--policy", policy)
    done = command("cdi", "list", "--policy", policy)
    assert "refused" in done.stdout
    assert "ask the platform team" in done.stdout


def as_json() -> tuple[int, int, list[str]]:
    """The exit code of `cdi check`, how many devices it sees, and what is wrong."""
    done = command("cdi", "check", "--json")
    found = json.loads(done.stdout)
    jsonschema.validate(found, json.loads((ROOT / "schema" / "cdi-check.schema.json").read_text()))
    return done.returncode, len(found["devices"]), found["problems"]


def test_check(directory: Path) -> None:
    launcher = install(directory / "hook")
    command("cdi", "generate", "--hook", launcher)
    done = command("cdi", "check")
    assert (done.returncode, done.stdout, done.stderr) == (
        DONE,
        "/etc/cdi/bpffs.io-profile.json is in order: 6 devices\n",
        "",
    )
    assert as_json() == (DONE, 6, [])
    launcher.chmod(0o777)
    code, _, problems = as_json()
    assert (code, len(problems)) == (USAGE, 1)
    assert "others than root can change it" in command("cdi", "check").stderr
    launcher.chmod(0o644)
    assert "isn't executable" in command("cdi", "check").stderr
    launcher.unlink()
    done = command("cdi", "check")
    assert done.returncode == USAGE
    assert f"the hook {launcher}: No such file" in done.stderr


def test_check_against_a_policy(directory: Path, policy: Path) -> None:
    launcher = install(directory / "hook")
    command("cdi", "generate", "--hook", launcher, "--profile", "xdp")
    done = command("cdi", "check", "--policy", policy)
    assert done.returncode == UNKNOWN_NAME
    assert 'the policy has no profile "xdp"' in done.stderr
    command("cdi", "generate", "--hook", launcher, "--policy", policy)
    done = command("cdi", "check", "--policy", policy)
    assert done.returncode == REFUSED
    assert "ask the platform team" in done.stderr


def test_remove(directory: Path) -> None:
    launcher = install(directory / "hook")
    command("cdi", "generate", "--hook", launcher)
    # Another installation's, and one that has another hook.
    assert command("cdi", "remove", "--hook", f"{launcher}2") == (DONE, "", "")
    assert command("cdi", "remove", "--hook", launcher.parent) == (DONE, "", "")
    (directory / "other.json").write_text((directory / FILE).read_text().replace("hook/", "x/"))
    done = command("cdi", "remove", "--hook", launcher)
    assert done == (DONE, f"remove /etc/cdi/{FILE}\n", "")
    assert [path.name for path in directory.glob("*.json")] == ["other.json"]
    assert command("cdi", "remove", "--hook", launcher) == (DONE, "", "")


@pytest.mark.parametrize("name", ["other.json", "other.yaml"])
def test_remove_where_somebody_else_has_the_hook(directory: Path, name: str) -> None:
    launcher = install(directory / "hook")
    command("cdi", "generate", "--hook", launcher)
    (directory / name).write_text((directory / FILE).read_text())
    done = command("cdi", "remove", "--hook", launcher)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert (
        f"/etc/cdi/{name} runs the hook {launcher}, and once the hook is gone no container"
        in done.stderr
    )
    assert (directory / FILE).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "this isn't JSON"),
        ("[]", "the file: [] is not of type 'object'"),
        ("{}", "'cdiVersion' is a required property"),
        ('{"cdiVersion": "0.3.0", "kind": "nvidia.com/gpu", "devices": []}', "kind: "),
        ('{"kind": "a", "kind": "b"}', "a key comes twice"),
    ],
)
@pytest.mark.parametrize("name", ["list", "check"])
def test_a_file_that_is_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / "cdi.json").write_text(text)
    done = command("cdi", name, tmp_path / "cdi.json")
    assert (done.returncode, done.stdout) == (BAD_STATE, "")
    assert words in done.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = command("cdi", "check", tmp_path / "none.json")
    assert (done.returncode, done.stdout) == (USAGE, "")


def test_installed_it_names_the_installed_hook(tmp_path: Path) -> None:
    launcher = install(tmp_path / "x")
    package = launcher.parent / "oci_bpf_hook"
    for name, source in (("hooks", LAUNCHER.parent),):
        (package / name).mkdir()
        (package / name / "oci-bpf-hook.json").write_text(
            (source / "oci-bpf-hook.json").read_text()
        )
    done = subprocess.run(
        ["/usr/bin/python3", "-m", "oci_bpf_hook", "cdi", "generate", "--output", "-"],
        cwd=launcher.parent,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    device = json.loads(done.stdout)["devices"][0]
    assert device["containerEdits"]["hooks"][0]["path"] == str(launcher)
