"""Upgrades of the Debian and the RPM package, and of the wheel, from what was before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.lsm import load
from oci_bpf_hook.paths import GUARD, PINS
from tests.support import policy
from tests.support.packages import (
    ALONE,
    HOOK_JSON,
    LIBEXEC,
    PACKAGE,
    booted,
    changes,
    compiled,
    flat_source,
    granted,
    manager,
    package,
    podman_as_installed,
    run,
    stale,
    traced,
    written,
)
from tests.support.pins import bpffs, pin
from tests.support.places import ROOT


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_an_upgrade_goes_on_where_the_guard_can_t_be_renewed(
    kind: str, built: Path, newer: Path, host: Path
) -> None:
    """As on this kernel. The older one is left as it was, and whoever upgrades is told."""
    install, remove = manager(kind, host)
    run(*install, package(built, kind))
    with bpffs(), booted():
        pin()
        done = subprocess.run(
            [*install, package(newer, kind)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "the guard isn't renewed, and the older one is left as it was" in done.stderr
        assert set(os.listdir(GUARD)) == {*guard.LINKS, *load.MAPS}
        assert os.listdir(PINS) == ["guard"]
        # Where there is none, nobody turns one on.
        run(*ALONE, *remove)
        run(*install, package(built, kind))
        run(*install, package(newer, kind))
        assert not Path(PINS).exists()


def listed(path: str) -> set[Path]:
    """What the package at `path` has installed below PACKAGE, with what dpkg has compiled of it."""
    if path.endswith(".rpm"):
        names = run("rpm", "-qpl", path).splitlines()
    else:
        lines = run("dpkg-deb", "-c", path).splitlines()
        names = [line.split(maxsplit=5)[5][1:].rstrip("/") for line in lines]
    found = {Path(name) for name in names if name.startswith(f"{PACKAGE}/")}
    codes = {compiled(source) for source in found if source.suffix == ".py"}
    return found | codes | {code.parent for code in codes}


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_an_upgrade_leaves_nothing_of_the_flat_layout(
    kind: str, built: Path, flat: Path, host: Path
) -> None:
    """Nor of the time before the guard, which is there afterwards, and neither enabled nor on."""
    install, remove = manager(kind, host)
    before = written(host) - {str(policy.POLICY), str(policy.POLICY.parent)}
    unit = Path("/usr/lib/systemd/system/oci-bpf-hook-guard.service")
    # It doesn't know the word `confined`.
    policy.POLICY.unlink()
    run(*install, package(flat, kind))
    assert set(PACKAGE.rglob("*")) == listed(package(flat, kind))
    assert {PACKAGE / "hook.py", PACKAGE / "commands"} <= set(PACKAGE.iterdir())
    assert not unit.exists()
    # As of a Python that the host had once: no package has this.
    for directory in (PACKAGE, PACKAGE / "commands"):
        for name in ("policy", "of_no_module_now"):
            (directory / "__pycache__" / f"{name}.cpython-310.pyc").touch()
    with podman_as_installed() as world:
        assert granted(world)
        policy.write(policy.UNCONFINED)
        with booted():
            run(*install, package(built, kind))
        assert set(PACKAGE.rglob("*")) == listed(package(built, kind))
        assert stale() == []
        assert granted(world)
        run("oci-bpf-hook", "policy", "check", cwd=host)
        assert unit.exists()
        assert not list(Path("/etc/systemd/system").rglob("oci-bpf-hook-*"))
        status = "oci-bpf-hook guard status --json || [ $? = 20 ]"
        assert '"in_force": false' in run("sh", "-c", status)
        run(*ALONE, *remove)
        assert not granted(world)
    assert not unit.exists()
    assert not LIBEXEC.exists()
    if kind == "deb":
        run("dpkg", "-P", "oci-bpf-hook")
    assert {path for path in written(host) - before if not path.startswith("/var/log")} <= {
        str(policy.POLICY),
        str(policy.POLICY.parent),
    }


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_an_upgrade_replaces_the_launcher_before_its_modules(
    kind: str, built: Path, flat: Path, host: Path
) -> None:
    """An older launcher would end in a traceback (see `tests/install/test_upgrade.py`)."""
    install, _ = manager(kind, host)
    run(*install, package(flat, kind))
    trace = host / "trace"
    run(*traced(trace), *install, package(built, kind))
    placed = [Path(path) for call, path in changes(trace) if call == "rename"]
    # dpkg makes the directories before it puts any file in its place, and compiles at the end.
    files = [path for path in placed if path.suffix != ".pyc" and not path.is_dir()]
    ours = [path for path in files if path.is_relative_to(LIBEXEC)]
    assert ours[0] == LIBEXEC / "oci-bpf-hook"
    assert len(ours) > 200
    # Each of the older ones goes when the new ones are there.
    done = [path for _, path in changes(trace)]
    assert done.index(f"{PACKAGE}/hook.py") > max(done.index(str(path)) for path in ours)


@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_an_upgrade_keeps_what_was_chosen(kind: str, built: Path, newer: Path, host: Path) -> None:
    """The engine, in the JSON or in the policy, and how long it waits for the hook."""
    install, remove = manager(kind, host)
    again = {"deb": install, "rpm": [*install, "--force"]}[kind]
    run(*install, package(built, kind))
    own = json.loads(HOOK_JSON.read_text())
    run("oci-bpf-hook", "install", "--engine", "podman")
    chosen = json.loads(HOOK_JSON.read_text())
    chosen["hook"]["timeout"] = 120
    HOOK_JSON.write_text(json.dumps(chosen))
    engine = policy.POLICY.read_text().replace("version: 1\n", "version: 1\nengine: podman\n")
    policy.POLICY.write_text(engine)
    for path in (package(newer, kind), package(newer, kind)):
        run(*again, path)
        assert json.loads(HOOK_JSON.read_text()) == chosen
        assert policy.POLICY.read_text() == engine
        assert not list(HOOK_JSON.parent.glob("*.kept"))
    run(*remove)
    # What was removed begins anew.
    run(*install, package(built, kind))
    assert json.loads(HOOK_JSON.read_text()) == own
    run(*remove)
    assert not HOOK_JSON.parent.exists() or not list(HOOK_JSON.parent.iterdir())


def test_pip_leaves_nothing_of_the_flat_layout(tmp_path: Path) -> None:
    """Nor does the wheel that is built where the older one was."""
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", str(venv))
    python = str(venv / "bin" / "python")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    install = (*pip, "install", "--quiet", "--no-deps", "--upgrade")
    new = tmp_path / "new"
    new.mkdir()
    names = ("oci_bpf_hook", "schema", "hooks.d", "contrib", "docs", "pyproject.toml", "setup.py")
    files = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    run("cp", "-r", *(str(ROOT / name) for name in (*names, *files)), str(new))
    run(*install, str(new))
    (site,) = venv.glob("lib/python*/site-packages")
    fresh = set(site.rglob("*"))
    run(*pip, "uninstall", "--quiet", "--yes", "oci-bpf-hook")
    older = flat_source("0.0.1", tmp_path)
    run(*install, str(older))
    assert (site / "oci_bpf_hook" / "hook.py").exists()
    # git leaves what it ignores where it is.
    for name in ("build", "oci_bpf_hook.egg-info"):
        shutil.rmtree(new / name)
        shutil.copytree(older / name, new / name)
    run(*install, str(new))
    assert set(site.rglob("*")) == fresh
    shown = run(str(venv / "bin" / "oci-bpf-hook"), "kernel", "--table", "--json", cwd=tmp_path)
    assert json.loads(shown)["delegate_cmds"]
