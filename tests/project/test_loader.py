"""The hook's own importing takes what importlib would take, and leaves everything else to it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from oci_bpf_hook.loader import FOLDERS
from tests.support.scratch import LAUNCHER, Scratch

PACKAGE = LAUNCHER.parents[1] / "oci_bpf_hook"
# Each module's name below the package, its folder there, and its file's stem.
MODULES = [
    (
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts),
        str(path.parent.relative_to(PACKAGE)).removeprefix(".").rstrip("/")
        + "/" * (path.parent != PACKAGE),
        path.stem,
    )
    for path in sorted(PACKAGE.rglob("*.py"))
]
# Says who loaded a module, what came of it, and what the module is told about itself.
_SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from oci_bpf_hook.loader import ahead, install
if sys.argv[2] != "importlib":
    install()
if sys.argv[2] == "ahead":
    ahead(["piece"])
    assert "oci_bpf_hook.piece" in sys.modules and not hasattr(sys.modules["oci_bpf_hook"], "inner")
import oci_bpf_hook.piece as piece
import oci_bpf_hook.inner, oci_bpf_hook.inner.part
spec = piece.__spec__
print(json.dumps({
    "loader": type(spec.loader).__name__,
    "value": piece.VALUE,
    "told": [piece.__name__, piece.__package__, piece.__file__, piece.__cached__, piece.__doc__,
             spec.origin, spec.cached, spec.has_location, spec.parent, spec.loader_state,
             spec.submodule_search_locations],
    "packages": [type(oci_bpf_hook.inner.__spec__.loader).__name__,
                 type(oci_bpf_hook.inner.part.__spec__.loader).__name__],
}))
"""
# Says what a folder of the hook's is as a package.
_FOLDERS = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
from oci_bpf_hook.loader import FOLDERS, install
if sys.argv[2] == "ours":
    install()
told = {}
for folder in FOLDERS:
    package = importlib.import_module(f"oci_bpf_hook.{folder}")
    spec = package.__spec__
    told[folder] = [package.__name__, package.__package__, list(package.__path__), spec.name,
                    spec.parent, list(spec.submodule_search_locations)]
print(json.dumps({"told": told, "made": [f for f in FOLDERS
                  if not hasattr(sys.modules[f"oci_bpf_hook.{f}"], "__file__")]}))
"""


class Copy:
    """A package of that name with the loader and some modules, compiled."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        package = directory / "oci_bpf_hook"
        (package / "inner").mkdir(parents=True)
        for name in ("__init__.py", "loader.py"):
            shutil.copy(PACKAGE / name, package)
        self.source = package / "piece.py"
        self.source.write_text('"""A piece."""\n\nVALUE = 1\n')
        for name in ("__init__.py", "part.py"):
            (package / "inner" / name).touch()
        self.run("importlib")
        self.compiled = package / "__pycache__" / f"piece.{self.tag()}.pyc"

    def run(self, who: str) -> dict[str, object]:
        command = ["/usr/bin/python3", "-ISE", "-c", _SCRIPT, str(self.directory), who]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        assert isinstance(result, dict)
        return result

    @staticmethod
    def tag() -> str:
        command = ["/usr/bin/python3", "-c", "import sys; print(sys.implementation.cache_tag)"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.mark.parametrize("who", ["ours", "ahead"])
def test_a_module_is_the_same_by_whomever_it_is_loaded(copy: Copy, who: str) -> None:
    ours, importlib = copy.run(who), copy.run("importlib")
    assert (ours.pop("loader"), importlib.pop("loader")) == ("Loader", "SourceFileLoader")
    # The package of another module is for the next test.
    del ours["packages"], importlib["packages"]
    assert ours == importlib


def test_a_folder_that_isn_t_the_hook_s_is_importlib_s(copy: Copy) -> None:
    assert copy.run("ours")["packages"] == ["SourceFileLoader", "Loader"]
    assert copy.run("importlib")["packages"] == ["SourceFileLoader", "SourceFileLoader"]


def test_the_hook_s_folders_are_made_as_importlib_would() -> None:
    ours, importlib = _told("ours"), _told("importlib")
    assert ours["told"] == importlib["told"]
    assert (ours["made"], importlib["made"]) == (list(FOLDERS), [])


def _told(who: str) -> dict[str, object]:
    command = ["/usr/bin/python3", "-ISE", "-c", _FOLDERS, str(PACKAGE.parent), who]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def _longer(copy: Copy) -> None:
    copy.source.write_text('"""A piece."""\n\nVALUE = 1 + 1\n')


def _newer(copy: Copy) -> None:
    before = copy.source.stat()
    copy.source.write_text(copy.source.read_text().replace("1", "2"))
    # The same size, a second later.
    os.utime(copy.source, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))


@pytest.mark.parametrize("change", [_longer, _newer])
def test_a_source_that_has_changed(copy: Copy, change: Callable[[Copy], None]) -> None:
    change(copy)
    result = copy.run("ours")
    assert (result["loader"], result["value"]) == ("SourceFileLoader", 2)
    # importlib has written what is taken from now on.
    result = copy.run("ours")
    assert (result["loader"], result["value"]) == ("Loader", 2)


def _missing(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:12])


def _other_python(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def _by_hash(path: Path) -> None:
    source = path.parents[1] / "piece.py"
    command = "import py_compile, sys; py_compile.compile(*sys.argv[1:], "
    command += "invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)"
    subprocess.run(["/usr/bin/python3", "-c", command, str(source), str(path)], check=True)


def _too_long(path: Path) -> None:
    # A longer one is the same to importlib, which reads all of it.
    path.write_bytes(path.read_bytes().ljust(1 << 15, b"\0"))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "change", [_missing, _empty, _cut_off, _other_python, _by_hash, _too_long, _directory]
)
def test_byte_code_that_importlib_has_to_see_to(copy: Copy, change: Callable[[Path], None]) -> None:
    change(copy.compiled)
    result = copy.run("ours")
    assert (result["loader"], result["value"]) == ("SourceFileLoader", 1)


def test_a_source_that_is_gone(copy: Copy) -> None:
    copy.source.unlink()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        copy.run("ours")
    assert "No module named 'oci_bpf_hook.piece'" in caught.value.stderr


def test_all_that_the_hook_imports_comes_this_way(tmp_path: Path) -> None:
    with Scratch() as container:
        state = json.dumps(container.state({"io.bpffs.delegate_cmds": "map_create"}))
        trace = tmp_path / "trace"
        command = ["strace", "-f", "-o", str(trace), "-e", "trace=openat,newfstatat,ioctl,lseek"]
        # The second run finds the first one's mount, for which it takes more modules, and so the
        # third is the first for which everything is compiled.
        for _ in range(3):
            subprocess.run([*command, LAUNCHER], input=state, text=True, check=True)
    calls: dict[str, list[str]] = {}
    for line in trace.read_text().splitlines():
        for name, folder, stem in MODULES:
            places = f"{folder}{stem}.py", f"{folder}__pycache__/{stem}.cpython-"
            if any(f"/oci_bpf_hook/{place}" in line for place in places):
                calls.setdefault(name, []).append(line.split()[1].partition("(")[0])
    # The package and the loader have to be there first.
    for name in ("__init__", "loader"):
        assert calls.pop(name)
    wanted = {"hook.main", "policy.decide", "kernel.syscalls", "mount.container_half"}
    assert calls.keys() >= wanted
    # Whatever folder these are in has been made, and none is made in vain.
    assert {name.rpartition(".")[0] for name in calls} - {""} <= set(FOLDERS)
    for name, made in calls.items():
        assert made == ["newfstatat", "openat"], name
