"""containerd's drop-in, which `install --engine containerd` writes in the version that fits."""

import tomllib
from pathlib import Path

import pytest

from oci_bpf_hook.errors import USAGE
from oci_bpf_hook.install.containerd import DROP_IN
from tests.cli.commands.test_install import files, install, uninstall
from tests.support.command import command


def versions(path: Path) -> list[int]:
    """Those of containerd's drop-ins below `path`."""
    return [tomllib.loads(one.read_text())["version"] for one in path.rglob("conf.d/*.toml")]


@pytest.mark.parametrize(
    ("config", "version"),
    [("version = 2\n", 2), ("version = 3\n", 3), ("imports = []\n", 3), (None, 3)],
)
def test_containerd_s_drop_in_has_the_version_of_its_configuration(
    tmp_path: Path, config: str | None, version: int
) -> None:
    etc = tmp_path / "etc" / "containerd"
    etc.mkdir(parents=True)
    if config is not None:
        (etc / "config.toml").write_text(config)
    steps = install(tmp_path, "--engine", "containerd")
    # Before the JSON, which is the last, and has the engine's name.
    assert steps[-2] == ("write", DROP_IN[1:])
    assert versions(tmp_path) == [version]
    assert install(tmp_path, "--engine", "containerd") == []
    assert DROP_IN[1:] in uninstall(tmp_path)
    assert versions(tmp_path) == []


def test_containerd_s_drop_in_is_its_administrator_s(tmp_path: Path) -> None:
    """Until the version of config.toml is another one, when it would do harm."""
    drop_in = tmp_path / DROP_IN[1:]
    config = tmp_path / "etc" / "containerd" / "config.toml"
    install(tmp_path, "--engine", "containerd")
    changed = drop_in.read_text().replace("SystemdCgroup = true", "SystemdCgroup = false")
    drop_in.write_text(changed)
    assert install(tmp_path, "--engine", "containerd") == []
    config.write_text("version = 2\n")
    assert install(tmp_path, "--engine", "containerd") == [("write", DROP_IN[1:])]
    drop_in.write_text(changed)
    uninstall(tmp_path)
    assert drop_in.read_text() == changed


@pytest.mark.parametrize(
    ("config", "words"),
    [("version = 1\n", "config.toml has version 1, and the hook's"), ("version", "isn't TOML: ")],
)
def test_a_configuration_that_containerd_2_doesn_t_read(
    tmp_path: Path, config: str, words: str
) -> None:
    etc = tmp_path / "etc" / "containerd"
    etc.mkdir(parents=True)
    (etc / "config.toml").write_text(config)
    done = command("install", "--destdir", tmp_path, "--engine", "containerd")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert words in done.stderr
    assert files(tmp_path) == {etc / "config.toml"}
