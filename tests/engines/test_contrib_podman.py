"""contrib/podman: each of its files, as podman or we ourselves take it, and what comes of it."""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jsonschema
import pytest

from oci_bpf_hook.errors import DONE
from tests.support.broker import Broker
from tests.support.command import command
from tests.support.engines import RUNTIMES, CompletedProcess, Runtime
from tests.support.places import ROOT
from tests.support.podman import IMAGE, World
from tests.support.policy import UNCONFINED, in_force, trusting
from tests.support.scratch import LAUNCHER, install
from tests.support.users import ALICE, appended, users

EXAMPLES = ROOT / "contrib" / "podman"
HOOK = LAUNCHER.with_suffix(".json")
PRECREATE = EXAMPLES / "oci-bpf-hook-precreate.json"
QUADLET = EXAMPLES / "bpf-agent.container"
POD = EXAMPLES / "bpf-pod.yaml"
CONFIGURATION = Path("/etc/containers")
REGISTRY = "registry.example/"
SCRIPT = "probe map /sys/fs/bpf 1; probe prog /sys/fs/bpf 6 37"


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(UNCONFINED):
        yield


@pytest.fixture(scope="module", autouse=True)
def ids() -> Iterator[None]:
    """What --userns=auto takes its ids from."""
    with ExitStack() as stack:
        for name in ("subuid", "subgid"):
            stack.enter_context(appended(Path("/etc", name), ["containers:3000000:1048576"]))
        yield


@contextmanager
def configured(world: World, *drop_ins: Path | str) -> Iterator[dict[str, str]]:
    """The world's configuration as the host's own, without hooks and filter, and with `drop_ins`.

    For this environment of podman's.
    """
    before = (world.directory / "containers.conf").read_text().splitlines()
    kept = [line for line in before if not line.startswith(("hooks_dir", "seccomp_profile"))]
    directory = CONFIGURATION / "containers.conf.d"
    directory.mkdir(parents=True, exist_ok=True)
    main = CONFIGURATION / "containers.conf"
    main.write_text("\n".join(kept) + "\n")
    written = [main]
    try:
        for number, drop_in in enumerate(drop_ins):
            text = drop_in if isinstance(drop_in, str) else drop_in.read_text()
            written.append(directory / f"{number}.conf")
            written[-1].write_text(text)
        yield {"CONTAINERS_CONF": ""}
    finally:
        for path in written:
            path.unlink()


def results(text: str) -> list[str]:
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line["result"] or line["token"] for line in lines]


def run(world: World, *options: str, env: dict[str, str]) -> CompletedProcess:
    # With --userns=auto podman 4.3 has crun lift RLIMIT_MEMLOCK, for the cgroup's devices.
    return world.podman(
        *("run", "--rm", "--pull", "never", "--userns=auto", "--network", "none"),
        *("--cgroup-parent", f"/{world.cgroup_parent}", "--annotation", "io.bpffs.profile=xdp"),
        *(*options, IMAGE, "sh", "-c", SCRIPT),
        runtime="runc",
        env=env,
        check=False,
    )


def test_every_file_is_here() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {
        *("bpf-agent.container", "bpf-pod.yaml", "oci-bpf-hook-precreate.json"),
        *("precreate.conf", "seccomp.conf"),
    }


# ---- the JSON, and the configuration that makes podman look for it -----------------------


def test_the_json_is_the_hooks_at_another_stage() -> None:
    shipped, hook = json.loads(PRECREATE.read_text()), json.loads(HOOK.read_text())
    schema = json.loads((ROOT / "schema" / "hook.schema.json").read_text())
    # What CRI-O and buildah fail on is in no directory of theirs.
    assert not jsonschema.Draft202012Validator(schema).is_valid(shipped)
    assert not list((ROOT / "hooks.d").glob("*precreate*"))
    assert shipped["hook"].pop("args") == [*hook["hook"].pop("args"), "precreate"]
    assert shipped.pop("stages") == ["precreate"]
    assert hook.pop("stages") == ["createRuntime"]
    assert shipped == hook


def test_the_drop_in_for_precreate(world: World, tmp_path: Path) -> None:
    """Both directories, as it names them, here below another one."""
    text = (EXAMPLES / "precreate.conf").read_text().replace('"/usr/', f'"{tmp_path}/usr/')
    shared = tmp_path / "usr/share/containers/oci"
    for source, directory in ((HOOK, "hooks.d"), (PRECREATE, "precreate.d")):
        (shared / directory).mkdir(parents=True)
        config = json.loads(source.read_text())
        config["hook"]["path"] = str(LAUNCHER)
        (shared / directory / source.name).write_text(json.dumps(config))
    with configured(world, text) as env:
        done = run(world, env=env)
        assert done.returncode == 0, done.stderr
        assert results(done.stdout) == ["ok", "ok"]
        # It is removed before what it adds to, or with all of it: containers start.
        (shared / "precreate.d" / PRECREATE.name).unlink()
        done = run(world, env=env)
        assert (done.returncode, results(done.stdout)) == (0, ["EPERM", "EPERM"])
        (shared / "precreate.d").rmdir()
        assert run(world, env=env).returncode == 0


def test_the_drop_in_for_seccomp(world: World) -> None:
    profile = CONFIGURATION / "seccomp-bpf.json"
    hooks = f'[engine]\nhooks_dir = ["{world.hooks_dir}"]\n'
    capabilities = ("--cap-add", "BPF", "--cap-add", "NET_ADMIN")
    with configured(world, hooks) as env:
        assert results(run(world, *capabilities, env=env).stdout) == ["EPERM", "EPERM"]
    # As the drop-in says.
    done = command("seccomp", "--output", profile)
    assert done.returncode == DONE, done.stderr
    try:
        with configured(world, hooks, EXAMPLES / "seccomp.conf") as env:
            found = run(world, *capabilities, env=env)
            assert results(found.stdout) == ["ok", "ok"], found.stderr
            assert results(run(world, env=env).stdout) == ["EPERM", "EPERM"]
    finally:
        profile.unlink()


# ---- Quadlet ----------------------------------------------------------------------------


def quadlet() -> dict[str, list[tuple[str, str]]]:
    """The unit file's settings, by section."""
    found: dict[str, list[tuple[str, str]]] = {}
    section = ""
    for line in QUADLET.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(section, []).append((key, value))
    return found


def test_our_own_check_finds_nothing_wrong_with_the_unit() -> None:
    # On another kernel than this one the guard is taken to be in force.
    with in_force(None):
        done = command("check", "--strict", "--kernel", "6.12", "--file", QUADLET)
    assert (done.returncode, done.stderr) == (DONE, "")
    assert "granted by rule own-namespaces" in done.stdout
    assert "warning" not in done.stdout


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_quadlet_would_run(world: World, runtime: Runtime) -> None:
    """podman 4.3 has no Quadlet: this is the command line that podman-systemd.unit(5) tells of."""
    line = command("convert", "--from", "quadlet", "--to", "podman", QUADLET).stdout
    program, verb, *options, image = shlex.split(line)
    assert (program, verb, image) == ("podman", "run", f"{REGISTRY}bpf-agent:latest")
    settings = dict(quadlet()["Container"])
    assert settings.keys() == {
        *("AddCapability", "Annotation", "ContainerName", "Image", "UserNS"),
    }
    # Quadlet's own way to write each.
    assert f"--userns={settings['UserNS']}" in options
    assert settings["Annotation"] in options
    parent = ["--cgroup-parent", f"/{world.cgroup_parent}"]
    cgroups = ["--cgroups", "disabled"] if runtime == "crun" else parent
    done = world.podman(
        *("run", "--rm", "--pull", "never", *cgroups),
        *(*options, IMAGE, "sh", "-c", SCRIPT),
        runtime=runtime,
    )
    assert results(done.stdout) == ["ok", "ok"]


def test_systemd_takes_the_rest_of_the_unit(tmp_path: Path) -> None:
    sections = quadlet()
    sections.pop("Container")
    sections["Service"].append(("ExecStart", "/bin/true"))
    text = "".join(
        f"[{section}]\n" + "".join(f"{key}={value}\n" for key, value in settings)
        for section, settings in sections.items()
    )
    unit = tmp_path / "bpf-agent.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert f"{unit}:" not in done.stderr
    assert "bpf-agent.service:" not in done.stderr


# ---- kube play --------------------------------------------------------------------------


def test_our_own_check_knows_podmans_names() -> None:
    done = command("check", "--file", POD)
    assert done.returncode == DONE
    assert 'Kubernetes calls it "agent"' in done.stdout + done.stderr


@pytest.fixture(scope="module")
def alice() -> Iterator[tuple[World, Path]]:
    """A user's podman, and where she can run the hook.

    Root's, where it may not lift RLIMIT_MEMLOCK, plays no pod.
    """
    with users(), tempfile.TemporaryDirectory(prefix="obh-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        launcher = install(Path(directory) / "installed")
        with World(ALICE) as made:
            yield made, launcher


ALICES = f"""\
version: 1
rules: [{{name: hers, match: {{user: {ALICE.name}}}, allow: {{profiles: [xdp]}}}}]
profiles:
  xdp: {{delegate_cmds: [map_create, prog_load], delegate_maps: [hash], delegate_progs: [xdp],
    delegate_attachs: [xdp]}}
"""


@pytest.mark.parametrize("precreate", [False, True], ids=["as-it-is", "precreate"])
def test_one_container_of_a_pod_asks(alice: tuple[World, Path], precreate: bool) -> None:
    world, launcher = alice
    world.remove_hooks()
    world.install_hook(launcher, HOOK)
    text = POD.read_text()
    script = f"export PATH=/bin; {SCRIPT}; grep CapEff /proc/self/status"
    shell = json.dumps(["/bin/sh", "-c", script])
    for name in ("bpf-agent", "web"):
        text = text.replace(
            f"image: {REGISTRY}{name}:latest", f"image: {IMAGE}\n      command: {shell}"
        )
    text = text.replace("spec:\n", "spec:\n  restartPolicy: Never\n", 1)
    if precreate:
        world.install_hook(launcher, PRECREATE)
        text = text.replace("capabilities:\n          add: [BPF, NET_ADMIN]", "privileged: false")
    pod = world.directory / "bpf-pod.yaml"
    pod.write_text(text)
    with in_force(trusting(ALICES)), Broker():
        try:
            world.podman(
                *("kube", "play", "--userns=auto", "--network", "none"),
                *("--log-driver", "k8s-file", str(pod)),
            )
            logs = {}
            for name in ("agent", "web"):
                world.podman("wait", f"bpf-pod-{name}")
                logs[name] = world.podman("logs", f"bpf-pod-{name}").stdout
        finally:
            world.podman("kube", "down", str(pod), check=False)
    assert results(logs["agent"]) == ["ok", "ok"]
    assert "ok" not in results(logs["web"])
    assert "00000080a80435fb" in logs["agent"]
    assert "00000000a80425fb" in logs["web"]
