"""preload.py: which containers can have the shim. An image is anybody's, and may have any links."""

import os
from pathlib import Path

import pytest

from oci_bpf_hook.errors import BAD_STATE, HookError
from oci_bpf_hook.oci.cdi import PLACE
from oci_bpf_hook.oci.state import Rootfs
from oci_bpf_hook.shim import preload
from tests.support import shim

GLIBC, MUSL = preload._LOADERS[os.uname().machine]


def loader(root: Path, path: str = GLIBC) -> Path:
    """A file at `path` in the image at `root`, which need not be one that could be run."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b"")
    return root / path


def refused(root: Path, *mounts: str) -> str:
    with pytest.raises(HookError) as error:
        preload.loadable(str(root), mounts)
    assert error.value.code == BAD_STATE
    return str(error.value)


@pytest.mark.parametrize("path", [GLIBC, MUSL])
def test_an_image_with_a_loader(path: str, tmp_path: Path) -> None:
    said = refused(tmp_path)
    assert f"/{GLIBC} or /{MUSL}" in said
    assert "leave out io.bpffs.shim" in said
    loader(tmp_path, path)
    preload.loadable(str(tmp_path), [])


def test_links_lead_nowhere_but_within_the_image(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    loader(outside)
    top = GLIBC.partition("/")[0]
    # The host has such a loader where these lead from its own root.
    for target in (f"/{top}", str(outside / top), f"../outside/{top}", "/proc/self/root", top):
        (root / top).symlink_to(target)
        refused(root)
        (root / top).unlink()
    # As most distributions have it: /lib64 is a link to usr/lib64, and the loader itself one.
    real = loader(root, f"usr/{GLIBC}")
    for target in (f"usr/{top}", f"/usr/{top}"):
        (root / top).symlink_to(target)
        preload.loadable(str(root), [])
        real.rename(real.with_name("ld-2.36.so"))
        real.symlink_to("ld-2.36.so")
        preload.loadable(str(root), [])
        real.unlink()
        real.with_name("ld-2.36.so").rename(real)
        (root / top).unlink()


def test_what_isnt_a_file_is_no_loader(tmp_path: Path) -> None:
    path = loader(tmp_path)
    path.unlink()
    os.mkfifo(path)
    refused(tmp_path)
    path.unlink()
    path.mkdir()
    refused(tmp_path)
    assert "No such file" in refused(tmp_path / "missing")


def test_what_is_mounted_into_the_container_cant_be_told(tmp_path: Path) -> None:
    top = GLIBC.partition("/")[0]
    preload.loadable(str(tmp_path), ["/proc", f"/{top}/"])
    preload.loadable(str(tmp_path), [f"/{GLIBC}"])
    refused(tmp_path, "/", "/proc", f"/{top}/other", f"/{top}x")


def test_the_library(tmp_path: Path) -> None:
    with pytest.raises(HookError, match="run make shim"):
        preload.library(str(tmp_path))
    (tmp_path / "shim").mkdir()
    shim.build(tmp_path / "shim")
    assert Path(preload.library(str(tmp_path))).is_file()


def test_whoever_asks_has_it_already(tmp_path: Path) -> None:
    """A hook can add nothing to a container that is made; it refuses who asks and hasn't got it."""

    def check(value: str | None, *mounts: str) -> None:
        preload.check(
            Rootfs(
                path=str(tmp_path),
                masked=(),
                remounted=(),
                version=None,
                mounted=mounts,
                preload=value,
            )
        )

    loader(tmp_path)
    check(f"/a.so:{PLACE}", PLACE)
    # There is nothing to look at: at createContainer the bundle may be unreadable.
    check(None)
    for value, *mounts in (("", PLACE), (PLACE,), (f"{PLACE}x", PLACE)):
        with pytest.raises(HookError, match="nothing has added it"):
            check(value, *mounts)
    (tmp_path / GLIBC).unlink()
    with pytest.raises(HookError, match="no loader"):
        check(PLACE, PLACE)
