"""The installed layout: make install, a container from it, make uninstall; and pip."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs import PAGES, broken, pages
from tests.support.places import ROOT
from tests.support.podman import World

LIBEXEC = Path("/usr/libexec/oci-bpf-hook")
HOOKS_DIR = Path("/usr/share/containers/oci/hooks.d")
COMMAND = Path("/usr/bin/oci-bpf-hook")
MAN = Path("/usr/share/man/man1/oci-bpf-hook.1")
# The documents that docs/ and its links go with.
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
REQUEST = ("--annotation", "io.bpffs.delegate_cmds=map_create")


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def tree(directory: Path) -> set[str]:
    return {str(path) for path in directory.rglob("*")}


@pytest.fixture(autouse=True, scope="module")
def _lsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody else sees what `make guard` builds here: another worker reads this checkout."""
    here, copy = ROOT / "oci_bpf_hook" / "guard" / "lsm", tmp_path_factory.mktemp("guard") / "lsm"
    shutil.copytree(here, copy)
    run("mount", "--bind", str(copy), str(here))
    yield
    run("umount", "--lazy", str(here))


@pytest.fixture
def usr(tmp_path: Path) -> Iterator[None]:
    """This process's own view of /usr/libexec and /usr/share, for a real `make install`.

    The whole session is in a private mount namespace; the host never sees this.
    """
    mounted = []
    # An overlay's upper layer must not itself be on an overlay, as /tmp is on some CI machines.
    run("mount", "-t", "tmpfs", "tmpfs", str(tmp_path))
    for name in ("bin", "lib/systemd/system", "libexec", "share"):
        upper, work = tmp_path / name / "upper", tmp_path / name / "work"
        upper.mkdir(parents=True)
        work.mkdir()
        options = f"lowerdir=/usr/{name},upperdir={upper},workdir={work}"
        run("mount", "-t", "overlay", "overlay", "-o", options, f"/usr/{name}")
        mounted.append(f"/usr/{name}")
    yield
    for target in (*reversed(mounted), str(tmp_path)):
        # Programs of /usr/bin that are still ending keep it busy.
        run("umount", "--lazy", target)


@pytest.mark.usefixtures("usr")
def test_install_run_uninstall() -> None:
    before = tree(Path("/usr/libexec")) | tree(Path("/usr/share/containers"))
    run("make", "guard", "install")
    installed = HOOKS_DIR / "oci-bpf-hook.json"
    assert json.loads(installed.read_text()) == json.loads(
        (ROOT / "hooks.d" / "oci-bpf-hook.json").read_text()
    )
    for path in [LIBEXEC, *LIBEXEC.rglob("*"), installed, COMMAND, MAN]:
        status = path.stat()
        assert (status.st_uid, status.st_mode & 0o022) == (0, 0), path
    sources = {path.with_suffix("") for path in LIBEXEC.rglob("*.py")}
    assert sources == {
        path.parents[1] / path.name.partition(".")[0] for path in LIBEXEC.rglob("*.pyc")
    }
    with World() as world:
        done = world.podman(
            *("--hooks-dir", str(HOOKS_DIR), "run", "--rm", "--pull", "never"),
            *("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "--cap-add", "BPF"),
            *("--cgroup-parent", f"/{world.cgroup_parent}"),
            *("--annotation", "io.bpffs.delegate_cmds=map_create:prog_load"),
            *("localhost/oci-bpf-hook-test:latest", "cat", "/proc/mounts"),
        )
        assert "delegate_cmds=map_create:prog_load" in done.stdout
    # What is there is shown by its own command, whoever's directory this is.
    done = run("oci-bpf-hook", "install", "--dry-run", "--json", cwd=Path("/"))
    assert json.loads(done.stdout) == {"dry_run": True, "guard": True, "steps": []}
    assert "granted by rule" in run("oci-bpf-hook", "check", *REQUEST, cwd=Path("/")).stdout
    run("oci-bpf-hook", "policy", "check", cwd=Path("/"))
    assert "OCI-BPF-HOOK(1)" in run("man", "-l", str(MAN)).stdout
    run("make", "uninstall")
    after = tree(Path("/usr/libexec")) | tree(Path("/usr/share/containers"))
    # The hooks directory itself may stay: it is the engines'.
    assert after - before <= {str(HOOKS_DIR), str(HOOKS_DIR.parent)}
    assert not COMMAND.exists()
    assert not MAN.exists()


@pytest.mark.usefixtures("usr")
def test_precreate_by_its_drop_in() -> None:
    """`install --precreate` and the drop-in, both where they belong; gone in any order."""
    run("make", "install")
    run("oci-bpf-hook", "install", "--precreate", cwd=Path("/"))
    drop_in = LIBEXEC / "oci_bpf_hook" / "podman" / "precreate.conf"
    conf = Path("/etc/containers/containers.conf")
    (conf.parent / "containers.conf.d").mkdir(parents=True, exist_ok=True)
    installed = conf.parent / "containers.conf.d" / "oci-bpf-hook.conf"
    with World() as world:
        lines = (world.directory / "containers.conf").read_text().splitlines()
        own = ("hooks_dir", "seccomp_profile")
        conf.write_text("\n".join(line for line in lines if not line.startswith(own)))
        installed.write_text(drop_in.read_text())
        command = (
            *("run", "--rm", "--pull", "never", *REQUEST),
            *("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536"),
            *("--cgroup-parent", f"/{world.cgroup_parent}"),
            *("localhost/oci-bpf-hook-test:latest", "probe", "token", "/sys/fs/bpf"),
        )
        try:
            done = world.podman(*command, env={"CONTAINERS_CONF": ""})
            assert json.loads(done.stdout)["token"] == "ok"
            run("oci-bpf-hook", "uninstall", cwd=Path("/"))
            # The directory that it names may stay, be empty or be gone: containers start.
            done = world.podman(*command, env={"CONTAINERS_CONF": ""})
            assert json.loads(done.stdout)["token"] != "ok"
            (HOOKS_DIR.parent / "precreate.d").rmdir()
            world.podman(*command, env={"CONTAINERS_CONF": ""})
        finally:
            conf.unlink()
            installed.unlink()


def test_install_below_another_directory(tmp_path: Path) -> None:
    destination = tmp_path / "a b"
    # Whatever the administrator's umask is, others can read it.
    install = 'umask 077 && exec make install DESTDIR="$0" PREFIX=/opt/hook'
    run("sh", "-c", install, str(destination))
    for path in (destination / "opt/hook").rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044, path
    hook = json.loads(
        (destination / "opt/hook/share/containers/oci/hooks.d/oci-bpf-hook.json").read_text()
    )
    assert hook["hook"]["path"] == "/opt/hook/libexec/oci-bpf-hook/oci-bpf-hook"
    launcher = destination / "opt/hook/libexec/oci-bpf-hook/oci-bpf-hook"
    done = subprocess.run([launcher], input=b"{}", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    run("make", "uninstall", f"DESTDIR={destination}", "PREFIX=/opt/hook")
    assert not [path for path in destination.rglob("*") if path.is_file()]


def test_pip_install(tmp_path: Path) -> None:
    # From a copy: setuptools builds in the source tree.
    source = tmp_path / "source"
    source.mkdir()
    names = ("oci_bpf_hook", "schema", "hooks.d", "contrib", "docs", "pyproject.toml", "setup.py")
    run("cp", "-r", *(str(ROOT / name) for name in (*names, *BESIDE)), str(source))
    run(str(source / "contrib" / "build-guard"))
    target = tmp_path / "target"
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        # What it depends on is in this environment already, and pip would install it again.
        *("--no-deps", "--target", str(target), str(source)),
    )
    (installed,) = importlib.metadata.distributions(name="oci-bpf-hook", path=[str(target)])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plain = {one for one in installed.requires or () if "extra ==" not in one}
    assert plain == set(project["dependencies"])
    command = [sys.executable, "-m", "oci_bpf_hook"]
    done = run(*command, "kernel", "--table", "--json", cwd=target)
    names_of = {row["name"]: row["value"] for row in json.loads(done.stdout)["delegate_cmds"]}
    assert names_of["prog_load"] == 5
    assert (target / "bin" / "oci-bpf-hook").exists()
    run(*command, "policy", "check", "oci_bpf_hook/policy.yaml", cwd=target)
    # man(1) looks beside each directory of PATH.
    shown = run("env", f"PATH={target}/bin:/usr/bin:/bin", "man", "-w", "oci-bpf-hook-guard")
    assert shown.stdout == f"{target}/share/man/man8/oci-bpf-hook-guard.8\n"
    documents = target / "share" / "doc" / "oci-bpf-hook"
    assert pages(documents) == PAGES
    assert broken(documents) == []
    lsm = {path.name for path in (target / "oci_bpf_hook" / "guard" / "lsm").glob("guard.*")}
    assert lsm == {"guard.bpf.c", "guard.bpfel.o", "guard.bpfeb.o"}
    # What was installed from there is what is installed from here.
    run(*command, "install", "--destdir", str(tmp_path / "theirs"), cwd=target)
    run("make", "guard")
    run(*command, "install", "--destdir", str(tmp_path / "ours"))
    theirs = {path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*")}
    ours = {path.relative_to(tmp_path / "ours") for path in (tmp_path / "ours").rglob("*")}
    assert theirs == ours
