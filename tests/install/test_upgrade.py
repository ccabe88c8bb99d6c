"""`oci-bpf-hook install` over what an older version's own `install` has put there."""

import json
import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.errors import DONE, EXITS
from oci_bpf_hook.install.layout import Layout, install
from oci_bpf_hook.install.steps import Step
from oci_bpf_hook.loader import FOLDERS
from oci_bpf_hook.resources import RESOURCES
from tests.support.command import answer, command
from tests.support.packages import flat_source, source_of
from tests.support.policy import CACHE, in_force
from tests.support.scratch import ENVIRONMENT, LIMIT, Scratch, io

LIBEXEC = "usr/libexec/oci-bpf-hook"


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the time when all modules lay in one folder."""
    return flat_source("0.0.1", tmp_path_factory.mktemp("source"))


@pytest.fixture
def top(flat: Path, tmp_path: Path) -> Path:
    """Where that one has installed itself."""
    top = tmp_path / "top"
    top.mkdir()
    older = ["/usr/bin/python3", "-B", "-m", "oci_bpf_hook", "install", "--destdir", str(top)]
    subprocess.run(older, cwd=flat, capture_output=True, check=True)
    assert (top / LIBEXEC / "oci_bpf_hook" / "hook.py").exists()
    return top


def tree(top: Path) -> set[Path]:
    return {path.relative_to(top) for path in top.rglob("*")}


def test_nothing_of_the_flat_layout_is_left(top: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert command("install", "--destdir", other).returncode == DONE
    assert not tree(top) <= tree(other)
    _, shown = answer("install", "--destdir", top, "--dry-run")
    assert command("install", "--destdir", top).returncode == DONE
    assert tree(top) == tree(other)
    # A directory that goes is one step, whatever is in it.
    removed = {step["path"] for step in shown["steps"] if step["action"] == "remove"}
    package = top / LIBEXEC / "oci_bpf_hook"
    assert str(package / "commands") in removed
    assert not [path for path in removed if path.startswith(f"{package}/commands/")]
    assert answer("install", "--destdir", top)[1]["steps"] == []


def by_names(steps: list[Step]) -> list[Step]:
    """The steps as dpkg and rpm take them, which compile afterwards."""
    written = [step for step in steps if step.action == "write"]
    removed = [step for step in steps if step.action == "remove"]
    return sorted(written, key=lambda step: str(step.path)) + removed


def start(launcher: Path) -> int:
    """Have the hook grant a container something; its exit code, 0 if the container has that."""
    with Scratch() as scratch:
        done = subprocess.run(
            [launcher],
            input=json.dumps(scratch.state(io(delegate_cmds="map_create", delegate_maps="hash"))),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env=ENVIRONMENT,
            check=False,
        )
        if done.returncode == DONE:
            assert done.stderr == ""
            assert len(scratch.mounts()) == 1
        else:
            assert done.returncode in EXITS
            assert done.stderr.startswith("oci-bpf-hook: ")
            assert done.stderr.endswith(f" (exit code {done.returncode})\n")
            assert done.stderr.count("\n") == 1
            scratch.assert_untouched()
        return done.returncode


def of_the_hook(step: Step, package: Path) -> bool:
    """Whether the hook may notice that this step has been taken."""
    folder = ".".join(step.path.relative_to(package).parent.parts)
    return step.action != "write" or folder in ("", *FOLDERS)


@pytest.mark.parametrize("order", ["install", "names"])
def test_a_hook_that_starts_during_the_upgrade(order: str, top: Path) -> None:
    """It grants what it is asked for, or says in a sentence why it doesn't; and no traceback."""
    steps = install(Layout(top=str(top), prefix="/usr"), "createRuntime", None)
    launcher, package = top / LIBEXEC / "oci-bpf-hook", top / LIBEXEC / "oci_bpf_hook"
    if order == "names":
        steps = by_names(steps)
        # As a package's own script removes it before the upgrade.
        for code in package.rglob("*.pyc"):
            code.unlink()
    with in_force(None):
        codes = [start(launcher)]
        for step in filter(Step.needed, steps):
            step.execute()
            if package in step.path.parents and of_the_hook(step, package):
                CACHE.unlink(missing_ok=True)
                codes.append(start(launcher))
        codes.append(start(launcher))
    assert (codes[0], codes[-1]) == (DONE, DONE)
    assert any(codes)


@pytest.mark.parametrize("name", ["oci-bpf-hook", "bin"])
def test_a_program_without_its_modules(name: str, top: Path) -> None:
    """The launcher and the command say so: what is there may be no whole installation."""
    assert command("install", "--destdir", top).returncode == DONE
    program = top / LIBEXEC / name if name != "bin" else top / "usr/bin/oci-bpf-hook"
    for module in (top / LIBEXEC / "oci_bpf_hook").rglob("main.py"):
        module.unlink()
    done = subprocess.run([program], input="{}", capture_output=True, text=True, check=False)
    assert done.returncode in EXITS
    assert done.stderr.startswith("oci-bpf-hook: ")
    assert "modules" in done.stderr
    assert "install" in done.stderr
    assert done.stderr.endswith(f"(exit code {done.returncode})\n")
    assert done.stderr.count("\n") == 1


def test_an_older_checkout_s_folder_isn_t_installed(tmp_path: Path) -> None:
    """git leaves what it ignores in a folder that has been moved, as the guard's objects."""
    checkout = source_of("9.0.0", tmp_path)
    left = checkout / "oci_bpf_hook" / "lsm" / "guard.bpfel.o"
    left.parent.mkdir()
    left.touch()
    top = tmp_path / "top"
    top.mkdir()
    newer = ["/usr/bin/python3", "-B", "-m", "oci_bpf_hook", "install", "--destdir", str(top)]
    subprocess.run(newer, cwd=checkout, capture_output=True, check=True)
    package = top / LIBEXEC / "oci_bpf_hook"
    assert (package / "of_another_version.py").exists()
    assert not (package / "lsm").exists()
    assert {path.name for path in package.iterdir() if path.is_dir()} >= set(RESOURCES)
