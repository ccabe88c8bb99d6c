"""What an image of podman's asks for, told from what whoever starts it does."""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.container.images import asked_by_user, copies, of_user
from oci_bpf_hook.delegation.annotations import Request, parse
from oci_bpf_hook.errors import REFUSED, HookError
from tests.support.scratch import io

ID = "c0" * 32
IMAGE = "1a" * 32
MANIFEST = "manifest"
OF_DIGEST = "=" + base64.b64encode(b"manifest-sha256:abc").decode()
ASKS = io(profile="xdp")
PLACES = [f"overlay-containers/{ID}/userdata", "overlay/abc/merged"]


class Storage:
    """podman's, with one container of one image."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.list = top / "overlay-containers" / "containers.json"
        self.image = top / "overlay-images" / IMAGE
        self.list.parent.mkdir()
        self.image.mkdir(parents=True)
        self.contain([{"id": "0" * 64, "image": "2b" * 32}, {"id": ID, "image": IMAGE}])

    def contain(self, containers: list[dict[str, Any]], name: str = "containers.json") -> None:
        self.list.with_name(name).write_text(json.dumps(containers))

    def manifest(self, annotations: Mapping[str, object] | None, name: str = MANIFEST) -> None:
        made: dict[str, object] = {"schemaVersion": 2, "layers": []}
        if annotations is not None:
            made["annotations"] = annotations
        (self.image / name).write_text(json.dumps(made))

    def of_user(
        self, annotations: Mapping[str, str], place: str = PLACES[0], identity: str = ID
    ) -> dict[str, str]:
        return of_user(annotations, identity, f"{self.top}/{place}")

    def asked(
        self, annotations: dict[str, str], name: str | None = None, *, rootless: bool = False
    ) -> dict[str, str]:
        request = parse(annotations, lambda: name)
        assert isinstance(request, Request)
        return asked_by_user(
            request, annotations, ID, f"{self.top}/{PLACES[0]}", lambda: name, rootless=rootless
        )


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


@contextmanager
def refused(*words: str) -> Iterator[None]:
    with pytest.raises(HookError) as caught:
        yield
    assert caught.value.code == REFUSED
    assert [word for word in words if word not in str(caught.value)] == []


# ---- whose an annotation is --------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_what_stands_in_the_manifest_with_that_text(storage: Storage, place: str) -> None:
    storage.manifest({**ASKS, **io(path="/run/bpf"), "io.example": "x"})
    found = storage.of_user({**ASKS, **io(path="/mine"), "io.example": "x", "a": "b"}, place)
    assert found == {**io(path="/mine"), "a": "b"}


def test_vfs(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.manifest(ASKS)
    for name in ("containers", "images"):
        (tmp_path / f"overlay-{name}").rename(tmp_path / f"vfs-{name}")
    assert storage.of_user(ASKS, "vfs/dir/abc") == {}
    assert storage.of_user(ASKS, f"vfs-containers/{ID}/userdata") == {}


def test_the_manifest_of_a_platform(storage: Storage) -> None:
    """Beside an index: which of them podman takes depends on how the image was named."""
    storage.manifest(None)
    storage.manifest(ASKS, OF_DIGEST)
    (storage.image / "=c2hhMjU2OmFiYw==").write_bytes(b"\x00 no manifest")
    assert storage.of_user(ASKS) == {}


@pytest.mark.parametrize("annotations", [None, {}, {"io.bpffs.profile": 1}, io(profile="tc")])
def test_an_image_that_says_something_else(storage: Storage, annotations: Any) -> None:
    storage.manifest(annotations)
    assert storage.of_user(ASKS) == ASKS


def test_what_is_none_of_podmans(storage: Storage, tmp_path: Path) -> None:
    storage.manifest(ASKS)
    # CRI-O has its bundles where podman's storage has no list, and containerd elsewhere.
    for place in ("run/overlay-containers/x/userdata", "moby/x", "", "userdata"):
        assert storage.of_user(ASKS, place) == ASKS
    assert of_user(ASKS, ID, "rootfs") == ASKS
    # --rootfs.
    for image in ("", None):
        storage.contain([{"id": ID, "image": image}])
        assert storage.of_user(ASKS) == ASKS


def test_the_list_of_volatile_containers(storage: Storage) -> None:
    storage.manifest(ASKS)
    storage.list.rename(storage.list.with_name("volatile-containers.json"))
    assert storage.of_user(ASKS) == {}
    storage.contain([])
    assert storage.of_user(ASKS) == {}


def test_what_can_t_be_told(storage: Storage) -> None:
    with pytest.raises(ValueError, match="has no manifest"):
        storage.of_user(ASKS)
    for text in ("", "{", '{"annotations": {}'):
        (storage.image / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match=f"{IMAGE}/manifest: "):
            storage.of_user(ASKS)
    storage.manifest(ASKS)
    os.chown(storage.image / MANIFEST, 12345, 0)
    with pytest.raises(ValueError, match="not root's"):
        storage.of_user(ASKS)
    with pytest.raises(ValueError, match="no such container"):
        storage.of_user(ASKS, identity="d1" * 32)
    storage.list.write_text("no JSON")
    with pytest.raises(ValueError, match=r"containers\.json: "):
        storage.of_user(ASKS)


# ---- who asks ----------------------------------------------------------------------------


def test_the_image_asks(storage: Storage) -> None:
    storage.manifest(ASKS)
    words = ('the image itself says "io.bpffs.profile"', "io.bpffs.profile/NAME")
    with refused(*words, "image_annotations: true"):
        storage.asked(ASKS)
    # Beside what the user asks for as well.
    with refused(*words):
        storage.asked(ASKS | io(delegate_maps="hash"))
    # The policy isn't the user's to write, nor the hook's to read there.
    with pytest.raises(HookError, match="the image itself says") as caught:
        storage.asked(ASKS, rootless=True)
    assert "image_annotations" not in str(caught.value)


def test_the_user_asks(storage: Storage) -> None:
    storage.manifest({**io(profile="xdp", path="/run/bpf"), "io.example": "x"})
    mine = io(profile="tc", path="/sys/fs/bpf")
    assert storage.asked(mine | {"io.example": "x"}) == mine
    # By the container's name, which no image knows, its own words are none of it.
    named = {"io.bpffs.profile/web": "xdp", "io.bpffs.path/web": "/run/bpf"}
    assert storage.asked(named | io(profile="xdp", path="/run/bpf"), "web") == named
    with refused('"io.bpffs.path"'):
        storage.asked(io(profile="tc", path="/run/bpf"))


def test_an_image_that_guesses_the_name(storage: Storage) -> None:
    storage.manifest({"io.bpffs.profile/web": "xdp"})
    with refused('"io.bpffs.profile/web"'):
        storage.asked({"io.bpffs.profile/web": "xdp"}, "web")
    # Another's is nothing to anybody.
    both = {"io.bpffs.profile/web": "xdp", "io.bpffs.profile": "tc"}
    assert storage.asked(both, "db") == io(profile="tc")


def test_an_image_that_says_what_the_container_is_called(storage: Storage) -> None:
    """And so which of a pod's requests is its own."""
    name = {"io.kubernetes.container.name": "web"}
    storage.manifest(name)
    with refused("what the container is called"):
        storage.asked({"io.bpffs.profile/web": "xdp", **name}, "db")
    with refused("what the container is called"):
        storage.asked({"io.bpffs.profile/web": "xdp", **name})


def test_where_it_can_t_be_told_who_asks(storage: Storage) -> None:
    with refused("can't be told", "image_annotations: true"):
        storage.asked(ASKS)
    assert storage.asked(ASKS, rootless=True) == ASKS


@pytest.mark.parametrize(
    ("version", "copied"),
    [
        ("1.0.2-dev", True),
        ("1.0.0", True),
        ("1.1.0-rc.2", True),
        ("1.1.0", False),
        ("1.1.0+dev", False),
        ("1.3.0", False),
        ("2.0.0", False),
        ("", True),
        (None, True),
        (7, True),
    ],
)
def test_which_podman_copies(version: object, *, copied: bool) -> None:
    assert copies(version) is copied
