"""`oci-bpf-hook install` and `uninstall`: order, ownership, and doing nothing twice."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.errors import DONE, MOUNT_FAILED, USAGE, HookError
from oci_bpf_hook.install import bytecode
from oci_bpf_hook.install import layout as install_layout
from oci_bpf_hook.oci.cdi import DIRECTORIES, FILE
from oci_bpf_hook.paths import CACHE, GUARD, PINS, RUN
from tests.support.command import answer, command
from tests.support.pins import bpffs, pin
from tests.support.places import ROOT
from tests.support.policy import in_force
from tests.support.scratch import Scratch, io

LIBEXEC = "usr/libexec/oci-bpf-hook"
HOOKS = "usr/share/containers/oci/hooks.d"


def install(top: Path, *arguments: str) -> list[tuple[str, str]]:
    """The steps of an installation below `top`, each with its path from there."""
    code, found = answer("install", "--destdir", top, *arguments)
    assert code == DONE
    return [(step["action"], str(Path(step["path"]).relative_to(top))) for step in found["steps"]]


def uninstall(top: Path, *arguments: str) -> list[str]:
    done = command("uninstall", "--json", "--destdir", top, *arguments)
    assert (done.returncode, done.stderr) == (DONE, "")
    return [str(Path(step["path"]).relative_to(top)) for step in json.loads(done.stdout)["steps"]]


def files(top: Path) -> set[Path]:
    return {path for path in top.rglob("*") if path.is_file()}


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that no test changes: to compile one takes longer than all the rest."""
    whole = tmp_path_factory.mktemp("whole")
    install(whole)
    return whole


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with another prefix, /opt/x."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    install(elsewhere, "--prefix", "/opt/x")
    return elsewhere


@pytest.fixture
def top(whole: Path, tmp_path: Path) -> Path:
    """Where something is installed already."""
    copy(whole, tmp_path)
    return tmp_path


def test_the_program_comes_first_and_the_json_last(tmp_path: Path) -> None:
    steps = install(tmp_path)
    paths = [path for _, path in steps]
    assert paths[-1] == f"{HOOKS}/oci-bpf-hook.json"
    compiled = steps.index(("compile", f"{LIBEXEC}/oci_bpf_hook"))
    launcher = paths.index(f"{LIBEXEC}/oci-bpf-hook")
    modules = [n for n, path in enumerate(paths) if path.endswith(".py")]
    # An older one doesn't know how to say that its modules are being replaced.
    assert launcher < min(modules) <= max(modules) < compiled < len(paths) - 1
    assert paths[max(modules)] == f"{LIBEXEC}/oci_bpf_hook/loader.py"
    removed = uninstall(tmp_path)
    assert removed[0] == f"{HOOKS}/oci-bpf-hook.json"
    assert removed[-1] == LIBEXEC
    assert files(tmp_path) == set()


def test_it_is_compiled_for_the_python_that_is_there_now(top: Path) -> None:
    """And not for the one before a host's upgrade."""
    for path in top.rglob("*.pyc"):
        path.rename(path.with_name(f"{path.name.partition('.')[0]}.cpython-310.pyc"))
    assert install(top) == [("compile", f"{LIBEXEC}/oci_bpf_hook")]
    assert install(top) == []


@pytest.mark.parametrize("version", ["3.9", ""])
def test_a_python_that_the_hook_cant_run_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """RHEL 9 has 3.9, whose compileall sees nothing wrong; or there is none."""
    python = tmp_path / "python3"
    if version:
        python.write_text(f"#!/bin/sh\necho '{version} '\n")
        python.chmod(0o755)
    monkeypatch.setattr(bytecode, "PYTHON", str(python))
    layout = install_layout.Layout(top=str(tmp_path), prefix="/usr")
    steps = install_layout.install(layout, "createRuntime", None)
    (step,) = (step for step in steps if step.action == "compile")
    with pytest.raises(HookError, match="the hook needs python3") as caught:
        step.execute()
    assert caught.value.code == USAGE
    assert f"is Python {version};" in str(caught.value) or not version


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_devices_go_before_the_program(elsewhere: Path, tmp_path: Path, directory: str) -> None:
    copy(elsewhere, tmp_path)
    where = tmp_path / directory.lstrip("/")
    where.mkdir(parents=True)
    program = "/opt/x/libexec/oci-bpf-hook/oci-bpf-hook"
    with in_force(None):
        made = command("cdi", "generate", "--hook", program, "--output", "-").stdout
    ours, theirs = where / FILE, where / "theirs.yaml"
    ours.write_text(made.replace("/opt/x", ""))
    # Those of another installation are its own.
    assert f"{directory[1:]}/{FILE}" not in uninstall(tmp_path, "--prefix", "/opt/x", "--dry-run")
    ours.write_text(made)
    theirs.write_text(made)
    before = files(tmp_path)
    done = command("uninstall", "--destdir", tmp_path, "--prefix", "/opt/x")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert (
        f"{theirs} runs the hook {program}, and once the hook is gone no container" in done.stderr
    )
    assert files(tmp_path) == before
    theirs.unlink()
    removed = uninstall(tmp_path, "--prefix", "/opt/x")
    assert removed[1] == f"{directory[1:]}/{FILE}"
    assert removed[-1] == "opt/x/libexec/oci-bpf-hook"
    assert files(tmp_path) == set()


@pytest.fixture
def opt() -> Iterator[Path]:
    """A directory of this host's that is root's alone, for whoever installs on the host itself."""
    place = Path("/opt")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_the_guard_goes_between_the_json_and_the_program(opt: Path, top: Path) -> None:
    """There is one of a host: it goes with what is installed on that, and not with a package."""
    prefix = ("--prefix", opt)
    assert command("install", *prefix).returncode == DONE
    with bpffs():
        pin()
        assert "sys/fs/bpf/oci-bpf-hook" not in uninstall(top)
        assert command("uninstall", "--force", "--prefix", opt / "none").stdout == ""
        dry = command("uninstall", "--json", "--force", *prefix, "--dry-run")
        assert Path(GUARD).is_dir()
        done = command("uninstall", "--json", "--force", *prefix)
        steps = json.loads(done.stdout)["steps"]
        assert steps == json.loads(dry.stdout)["steps"]
        assert steps[1] == {"action": "off", "path": PINS}
        assert [step["action"] for step in steps].count("off") == 1
        assert not Path(PINS).exists()
    assert files(opt) == set()


def test_the_first_hook_needs_not_compile_the_policy(opt: Path, tmp_path: Path) -> None:
    compiled = Path(RUN) / CACHE
    compiled.unlink(missing_ok=True)
    with in_force(None):
        assert command("install", "--prefix", opt, "--dry-run").returncode == DONE
        install(tmp_path)
        assert not compiled.exists()
        assert command("install", "--prefix", opt).returncode == DONE
        kept = compiled.stat().st_ino
        # It is the one that the installed hook takes.
        hook = opt / "libexec" / "oci-bpf-hook" / "oci-bpf-hook"
        with Scratch() as scratch:
            state = json.dumps(scratch.state(io(delegate_cmds="map_create")))
            done = subprocess.run([hook], input=state, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (DONE, "")
        assert compiled.stat().st_ino == kept
    assert command("uninstall", "--prefix", opt).returncode == DONE


def test_nothing_goes_while_the_guard_holds_somebody(opt: Path) -> None:
    prefix = ("--prefix", opt)
    assert command("install", *prefix).returncode == DONE
    before = files(opt)
    with bpffs(), Scratch() as scratch:
        scratch.hook(io(delegate_cmds="map_create"))
        pin()
        done = command("uninstall", *prefix)
        assert (done.returncode, done.stdout) == (MOUNT_FAILED, "")
        held = f"pid {scratch.init.pid} may be confined by the guard, "
        assert f"{held}and without the guard would be trusted" in done.stderr
        assert files(opt) == before
        assert Path(GUARD).is_dir()
        assert command("uninstall", "--force", *prefix).returncode == DONE
        assert not Path(PINS).exists()
    assert files(opt) == set()


@pytest.mark.parametrize("compiled", [True, False])
def test_it_says_whether_the_guard_is_part_of_it(compiled: bool, tmp_path: Path) -> None:
    """As in a checkout where nobody has said `make guard`."""
    objects = {f"{LIBEXEC}/oci_bpf_hook/guard/lsm/guard.bpf{order}.o" for order in ("el", "eb")}
    checkout = tmp_path / "checkout"
    for name in ("oci_bpf_hook", "schema", "hooks.d", "contrib"):
        shutil.copytree(ROOT / name, checkout / name)
    for path in checkout.rglob("guard.bpf*.o"):
        path.unlink()
    if compiled:
        subprocess.run([checkout / "contrib" / "build-guard"], check=True)
    where = ("--destdir", str(tmp_path / "root"))
    run = [sys.executable, "-m", "oci_bpf_hook", "install", *where]
    said = subprocess.run(run, capture_output=True, text=True, check=True, cwd=checkout).stdout
    assert ("without the guard: it isn't compiled here" in said) is not compiled
    there = {str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*.o")}
    assert there == (objects if compiled else set())
    done = subprocess.run([*run, "--json"], capture_output=True, check=True, cwd=checkout)
    assert json.loads(done.stdout) == {"dry_run": False, "guard": compiled, "steps": []}


def test_twice_is_once(top: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in files(top)}
    assert install(top) == []
    assert {path: path.stat().st_mtime_ns for path in files(top)} == before
    uninstall(top)
    assert uninstall(top) == []


def test_what_is_different_is_put_right(top: Path) -> None:
    package = top / LIBEXEC / "oci_bpf_hook"
    (package / "hook" / "main.py").write_text("")
    (package / "delegation" / "masks.py").chmod(0o666)
    (package / "of_another_version.py").write_text("")
    (package / "__pycache__" / "of_another_version.cpython-311.pyc").write_text("")
    (package / "folder" / "below" / "__pycache__").mkdir(parents=True)
    (package / "folder" / "below" / "of_another_version.py").write_text("")
    (package / "schema" / "__pycache__").mkdir()
    (package / "link").symlink_to("policy")
    (top / "usr/bin/oci-bpf-hook").unlink()
    (top / "usr/bin/oci-bpf-hook").symlink_to("/bin/true")
    assert install(top) == [
        ("write", "usr/bin/oci-bpf-hook"),
        ("write", f"{LIBEXEC}/oci_bpf_hook/delegation/masks.py"),
        ("write", f"{LIBEXEC}/oci_bpf_hook/hook/main.py"),
        ("remove", f"{LIBEXEC}/oci_bpf_hook/__pycache__/of_another_version.cpython-311.pyc"),
        ("remove", f"{LIBEXEC}/oci_bpf_hook/folder"),
        ("remove", f"{LIBEXEC}/oci_bpf_hook/link"),
        ("remove", f"{LIBEXEC}/oci_bpf_hook/of_another_version.py"),
        ("remove", f"{LIBEXEC}/oci_bpf_hook/schema/__pycache__"),
        ("compile", f"{LIBEXEC}/oci_bpf_hook"),
    ]
    assert (package / "policy" / "decide.py").exists()
    assert install(top) == []


def test_nobody_elses_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        install(tmp_path)
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        wanted = 0o755 if path.is_dir() or path.name == "oci-bpf-hook" else 0o644
        if "completions" not in path.parts:
            assert path.stat().st_mode & 0o777 == wanted, path


def test_dry_run(tmp_path: Path) -> None:
    steps = install(tmp_path, "--dry-run")
    assert list(tmp_path.iterdir()) == []
    done = command("install", "--dry-run", "--destdir", tmp_path)
    assert f"write {tmp_path}/{LIBEXEC}/oci-bpf-hook (0755)\n" in done.stdout
    assert done.stdout.endswith("nothing was done\n")
    assert steps == install(tmp_path)
    assert uninstall(tmp_path, "--dry-run")
    assert install(tmp_path) == []


@pytest.mark.parametrize("engine", [None, "podman", "cri-o", "containerd"])
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_stage_and_engine(stage: str, engine: str | None, elsewhere: Path, tmp_path: Path) -> None:
    # The modules, and what they are compiled to, are the same.
    (tmp_path / "opt" / "x" / "libexec").mkdir(parents=True)
    copy(elsewhere / "opt" / "x" / "libexec", tmp_path / "opt" / "x" / "libexec")
    arguments = ("--engine", engine) if engine else ()
    steps = install(tmp_path, "--prefix", "/opt/x", "--stage", stage, *arguments)
    hook = json.loads((tmp_path / steps[-1][1]).read_text())
    assert hook["stages"] == [stage]
    assert hook["hook"]["path"] == "/opt/x/libexec/oci-bpf-hook/oci-bpf-hook"
    unit = (tmp_path / "opt/x/lib/systemd/system/oci-bpf-hook-broker.service").read_text()
    assert "\nExecStart=/opt/x/bin/oci-bpf-hook broker\n" in unit
    assert hook["hook"]["args"] == ["oci-bpf-hook", *(("--engine", engine) if engine else ())]
    # Another engine is another JSON, and nothing else; an upgrade keeps the engine.
    assert install(tmp_path, "--prefix", "/opt/x", "--stage", stage) == []
    other = ("--engine", "podman" if engine == "cri-o" else "cri-o")
    assert install(tmp_path, "--prefix", "/opt/x", "--stage", stage, *other) == [steps[-1]]
    uninstall(tmp_path, "--prefix", "/opt/x")
    assert files(tmp_path) == set()


def test_precreate_comes_last_and_goes_first(tmp_path: Path) -> None:
    """It is of no use without the hook itself; and nobody has it unasked."""
    precreate = "usr/share/containers/oci/precreate.d/oci-bpf-hook-precreate.json"
    plain = install(tmp_path)
    assert precreate not in [path for _, path in plain]
    assert install(tmp_path, "--precreate", "--engine", "podman") == [
        ("write", f"{HOOKS}/oci-bpf-hook.json"),
        ("write", precreate),
    ]
    registered = json.loads((tmp_path / precreate).read_text())
    assert registered["stages"] == ["precreate"]
    assert registered["hook"]["path"] == "/usr/libexec/oci-bpf-hook/oci-bpf-hook"
    assert registered["hook"]["args"] == ["oci-bpf-hook", "precreate", "--engine", "podman"]
    # An update without the option leaves it where it is, and running.
    assert install(tmp_path, "--engine", "podman") == []
    assert uninstall(tmp_path)[:2] == [precreate, f"{HOOKS}/oci-bpf-hook.json"]
    assert files(tmp_path) == set()


@pytest.mark.parametrize("name", ["", "usr", HOOKS, LIBEXEC])
def test_a_directory_that_others_can_write(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)
    done = command("install", "--destdir", tmp_path)
    assert done.returncode == USAGE
    assert f"others than root can write {directory}," in done.stderr
    assert files(tmp_path) == set()
    directory.chmod(0o755)
    os.chown(directory, 12345, 12345)
    done = command("install", "--destdir", tmp_path)
    assert (done.returncode, files(tmp_path)) == (USAGE, set())
    assert f"{directory} isn't root's" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prefix", "usr"), "--prefix usr isn't an absolute path"),
        (("--destdir", "/a/../b"), "--destdir /a/../b isn't an absolute path"),
        (("--stage", "poststop"), "invalid choice"),
        (("--engine", "docker"), "invalid choice"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], words: str) -> None:
    done = command("install", "--dry-run", *arguments)
    assert done.returncode == USAGE
    assert words in done.stderr


def test_what_cant_be_written(tmp_path: Path) -> None:
    (tmp_path / "usr").write_text("")
    done = command("install", "--destdir", tmp_path)
    assert done.returncode == USAGE
    assert done.stderr.startswith("oci-bpf-hook: ")
    assert "Not a directory" in done.stderr
