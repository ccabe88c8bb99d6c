"""state.py: a container's root by config.json and crun's copy of it, and files not believed."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from oci_bpf_hook.errors import HookError
from oci_bpf_hook.oci.state import Rootfs, find_rootfs
from tests.support.captured import CRUN, RELATIVE, RUNC, Bundle
from tests.support.scratch import install


@pytest.fixture
def crun(tmp_path: Path) -> Bundle:
    return Bundle(CRUN, tmp_path)


@pytest.fixture
def runc(tmp_path: Path) -> Bundle:
    return Bundle(RUNC, tmp_path)


def test_the_runtimes_directory_is_no_root_at_create_runtime(runc: Bundle, tmp_path: Path) -> None:
    runc.file.unlink()
    with pytest.raises(HookError, match="can't be found"):
        find_rootfs(runc.checked(), cwd="/var/lib", crun=str(tmp_path))
    runc.state["pid"] = 1
    with pytest.raises(HookError, match="can't be found"):
        find_rootfs(runc.checked(), cwd="/", crun=str(tmp_path))


def unreadable(bundle: Bundle) -> str:
    bundle.file.unlink()
    bundle.file.mkdir()
    return "not a regular file"


def a_pipe(bundle: Bundle) -> str:
    # To open it without a writer must not hang.
    bundle.file.unlink()
    os.mkfifo(bundle.file)
    return "not a regular file"


def a_link(bundle: Bundle) -> str:
    bundle.file.rename(bundle.directory / "other.json")
    bundle.file.symlink_to("other.json")
    return "Too many levels of symbolic links"


def missing(bundle: Bundle) -> str:
    bundle.file.unlink()
    return "No such file or directory"


def no_bundle(bundle: Bundle) -> str:
    shutil.rmtree(bundle.directory)
    return "No such file or directory"


def no_json(bundle: Bundle) -> str:
    bundle.file.write_text(bundle.file.read_text()[:-1])
    return "config.json: "


def not_utf_8(bundle: Bundle) -> str:
    bundle.file.write_bytes(b'{"root": "\xff"}')
    return "config.json: "


def no_object(bundle: Bundle) -> str:
    bundle.file.write_text(f"[{bundle.file.read_text()}]")
    return "isn't a JSON object"


def huge(bundle: Bundle) -> str:
    bundle.config["padding"] = "x" * (4 << 20)
    bundle.write()
    return "too large"


def endless(bundle: Bundle) -> str:
    with open(bundle.file, "w") as file:
        file.truncate(1 << 40)
    return "too large"


def somebody_elses(bundle: Bundle) -> str:
    os.chown(bundle.file, 1000, 1000)
    return "not root's"


def other_annotations(bundle: Bundle) -> str:
    bundle.config["annotations"]["io.bpffs.delegate_cmds"] = "any"
    bundle.write()
    return "has other annotations than the state"


def fewer_annotations(bundle: Bundle) -> str:
    del bundle.config["annotations"]["io.container.manager"]
    bundle.write()
    return "has other annotations than the state"


def no_annotations(bundle: Bundle) -> str:
    del bundle.config["annotations"]
    bundle.write()
    return "has other annotations than the state"


def no_root(bundle: Bundle) -> str:
    del bundle.config["root"]
    bundle.write()
    return "has no root.path"


def null_root(bundle: Bundle) -> str:
    bundle.config["root"]["path"] = None
    bundle.write()
    return "has no root.path"


def nul_in_root(bundle: Bundle) -> str:
    bundle.config["root"]["path"] = "/a\0b"
    bundle.write()
    return "has no root.path"


def surrogate_in_root(bundle: Bundle) -> str:
    bundle.config["root"]["path"] = "/a\ud800b"
    bundle.write()
    return "has no root.path"


BREAK = [
    *(unreadable, a_pipe, a_link, missing, no_bundle, no_json, not_utf_8, no_object, huge),
    *(endless, somebody_elses, other_annotations, fewer_annotations, no_annotations, no_root),
    *(null_root, nul_in_root, surrogate_in_root),
]
by_break = pytest.mark.parametrize("damage", BREAK, ids=lambda damage: damage.__name__)


@by_break
def test_runc_without_a_believable_config_json_is_refused(
    runc: Bundle, damage: Callable[[Bundle], str]
) -> None:
    runc.refused(damage(runc))


@by_break
def test_crun_without_a_believable_config_json_is_asked_itself(
    crun: Bundle, damage: Callable[[Bundle], str]
) -> None:
    damage(crun)
    assert crun.find() == Rootfs(
        path=crun.state["root"], masked=(), remounted=(), version=None, mounted=(), preload=None
    )


@by_break
def test_without_cruns_word_there_is_its_copy(
    crun: Bundle, damage: Callable[[Bundle], str]
) -> None:
    wanted = crun.find()
    crun.copy_for_crun()
    del crun.state["root"]
    damage(crun)
    assert crun.find() == wanted


@by_break
def test_the_copy_must_be_believable_too(crun: Bundle, damage: Callable[[Bundle], str]) -> None:
    del crun.state["root"]
    copy = crun.copy_for_crun()
    crun.file.unlink()
    crun.file, crun.directory = copy, copy.parent
    damage(crun)
    crun.refused("config.json: No such file or directory")


def test_a_config_of_four_mebibytes_is_read(runc: Bundle) -> None:
    wanted = runc.find()
    with open(runc.file, "a") as file:
        file.write(" " * ((4 << 20) - runc.file.stat().st_size))
    assert runc.find() == wanted
    with open(runc.file, "a") as file:
        file.write(" ")
    runc.refused("too large")


def test_an_annotation_more_in_the_config_does_no_harm(runc: Bundle) -> None:
    # crun leaves some out of the state.
    wanted = runc.find()
    runc.config["annotations"]["org.example"] = "1"
    runc.write()
    assert runc.find() == wanted


def test_no_annotations_at_all(runc: Bundle) -> None:
    """As Docker has it on runc, where a CDI device runs the hook."""
    wanted = runc.find()
    del runc.state["annotations"], runc.config["annotations"]
    runc.write()
    assert runc.find() == wanted
    runc.config["annotations"] = None
    runc.write()
    assert runc.find() == wanted
    runc.config["annotations"] = []
    runc.write()
    runc.refused("has other annotations than the state")


def test_the_process_own_file_is_as_good_as_roots(runc: Bundle) -> None:
    # A broker or a rootless hook is not root; its engine's files are its own.
    os.chown(runc.directory, 1000, 1000)
    wanted = runc.find()
    code = (
        "import json, os, sys; os.setuid(1000)\n"
        "from oci_bpf_hook.oci.state import check, find_rootfs\n"
        "print(find_rootfs(check(json.load(sys.stdin))).path)"
    )
    for directory in (runc.directory, *runc.directory.parents):
        if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(0o755)
    # A copy, since a checkout may be where only root can go.
    hook = install(runc.directory / "hook")
    for owner, path in ((0, wanted.path), (1000, wanted.path), (2000, None)):
        os.chown(runc.file, owner, owner)
        runc.file.chmod(0o644)
        result = subprocess.run(
            ["/usr/bin/python3", "-c", code],
            input=json.dumps(runc.state),
            capture_output=True,
            text=True,
            check=False,
            cwd=hook.parent,
        )
        assert result.stdout == (f"{path}\n" if path else "")
        assert ("not root's" in result.stderr) == (path is None)


def test_cruns_bundle_of_a_container_with_a_device(crun: Bundle) -> None:
    # crun before the fix of its issue 2025: with a user namespace and a device, "/".
    wanted = crun.find()
    crun.state["bundle"] = "/"
    assert crun.find() == Rootfs(
        path=wanted.path, masked=(), remounted=(), version=None, mounted=(), preload=None
    )
    crun.state["root"] = "rootfs"
    crun.refused('the bundle is "/"')
    crun.copy_for_crun()
    assert crun.find() == wanted
    del crun.state["root"]
    assert crun.find() == wanted


def test_a_relative_root_is_relative_to_the_bundle(tmp_path: Path) -> None:
    bundle = Bundle(RELATIVE, tmp_path)
    assert bundle.state["root"] == bundle.config["root"]["path"] == "rootfs"
    wanted = f"{bundle.directory}/rootfs"
    assert bundle.find().path == wanted
    bundle.file.unlink()
    assert bundle.find().path == wanted


def test_a_relative_root_in_cruns_copy_is_no_root(tmp_path: Path) -> None:
    # Relative to what, only the bundle would say.
    bundle = Bundle(RELATIVE, tmp_path)
    bundle.copy_for_crun()
    bundle.state["bundle"] = "/"
    bundle.refused('the bundle is "/"')


def test_config_json_comes_before_cruns_word(crun: Bundle) -> None:
    # It knows the masked paths, and has the root that runc would take.
    wanted = crun.find()
    crun.state["root"] = "/somewhere/else"
    assert crun.find() == wanted
    assert wanted.masked


def test_masked_paths_that_are_none(runc: Bundle) -> None:
    values: list[object] = [None, [], {}, {"maskedPaths": None}, {"maskedPaths": "/proc"}]
    for linux in values:
        runc.config["linux"] = linux
        runc.write()
        assert runc.find().masked == ()
    del runc.config["linux"]
    runc.write()
    assert runc.find().masked == ()
