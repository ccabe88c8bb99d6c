"""pyproject.toml names each folder of the package, and each kind of file that is in one."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from oci_bpf_hook.install.layout import _SUFFIXES
from oci_bpf_hook.resources import PACKAGE, RESOURCES
from tests.support.places import ROOT

with (ROOT / "pyproject.toml").open("rb") as _file:
    SETUPTOOLS = tomllib.load(_file)["tool"]["setuptools"]
# In their order, and where each is.
FOLDERS = {
    **{
        ".".join(("oci_bpf_hook", *path.parent.relative_to(PACKAGE).parts)): path.parent
        for path in PACKAGE.rglob("__init__.py")
    },
    **{f"oci_bpf_hook.{name}": ROOT / folder for name, folder in RESOURCES.items()},
}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"]


def test_each_folder_is_a_package_of_its_own() -> None:
    assert sorted(SETUPTOOLS["packages"]) == SETUPTOOLS["packages"]
    assert set(SETUPTOOLS["packages"]) == set(FOLDERS)
    places = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}
    assert places == {f"oci_bpf_hook.{name}": ROOT / where for name, where in RESOURCES.items()}


def test_a_folder_with_modules_is_a_package() -> None:
    """Others are neither in the wheel nor installed, and no resource stands in for one."""
    assert {path.parent for path in PACKAGE.rglob("*.py")} <= set(FOLDERS.values())
    assert not [name for name in RESOURCES if (PACKAGE / name).exists()]


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_what_lies_beside_the_modules_is_in_the_wheel(name: str) -> None:
    patterns = SETUPTOOLS["package-data"].get(name, [])
    for path in files(FOLDERS[name]):
        assert any(fnmatch(path.name, pattern) for pattern in patterns), path
    # What is there once it is compiled has a pattern all the same.
    used = {p for p in patterns if any(fnmatch(path.name, p) for path in files(FOLDERS[name]))}
    assert set(patterns) - used <= {"*.o", "*.so"}


def test_what_lies_beside_the_modules_is_installed() -> None:
    """All but the sources in C."""
    suffixes = {
        path.suffix
        for name, folder in FOLDERS.items()
        if name.rpartition(".")[2] not in RESOURCES
        for path in files(folder)
    }
    assert suffixes - set(_SUFFIXES) <= {".c", ".h"}
