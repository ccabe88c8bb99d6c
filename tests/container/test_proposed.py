"""proposed.py: what a configuration says of a container that isn't there yet."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.container.proposed import Proposed, identity, name
from oci_bpf_hook.errors import BAD_STATE, NO_USER_NAMESPACE, HookError
from tests.support.scratch import Scratch

ID = "5f3c" * 16
NEW = [{"type": kind} for kind in ("pid", "network", "mount", "user", "cgroup")]


@pytest.fixture(scope="module")
def other() -> Iterator[Scratch]:
    """A container that is there, with a network namespace that isn't its own."""
    with Scratch() as scratch:
        yield scratch


def config(*changed: dict[str, str], without: str = "", **more: Any) -> dict[str, Any]:
    """A configuration in which namespaces are `changed`, or one is left away."""
    kinds = {one["type"]: one for one in (*NEW, *changed)}
    kinds.pop(without, None)
    return {"linux": {"namespaces": list(kinds.values())}, **more}


def bind(source: str) -> dict[str, Any]:
    return {"type": "bind", "source": source, "destination": "/x", "options": ["rbind"]}


def user(pid: int | str) -> dict[str, str]:
    return {"type": "user", "path": f"/proc/{pid}/ns/user"}


def network(pid: int | str) -> dict[str, str]:
    return {"type": "network", "path": f"/proc/{pid}/ns/net"}


def test_a_new_user_namespace() -> None:
    with Proposed(config()) as container:
        assert container.owner() == os.geteuid()
        assert not container.has_host_network()
        assert not container.sees_host_cgroups(None)


def test_the_user_namespace_of_another_container(other: Scratch) -> None:
    with Proposed(config(user(other.init.pid))) as container:
        assert container.owner() == 0
        assert not container.has_host_network()
    fds = len(os.listdir("/proc/self/fd"))
    with Proposed(config(user(other.init.pid), network(other.init.pid))) as container:
        # Its network namespace is the host's still.
        assert container.has_host_network()
    assert len(os.listdir("/proc/self/fd")) == fds


@pytest.mark.parametrize("path", ["/proc/self/ns/user", "/proc/thread-self/ns/../ns/user"])
def test_the_hosts_by_another_name(path: str) -> None:
    """Its path says that it is a user namespace, and it is the one in which CAP_BPF is real."""
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HookError) as raised:
        Proposed(config({"type": "user", "path": path}))
    assert raised.value.code == NO_USER_NAMESPACE
    assert len(os.listdir("/proc/self/fd")) == fds


def test_a_bind_of_the_hosts(tmp_path: Path) -> None:
    path = tmp_path / "user"
    path.symlink_to("/proc/self/ns/user")
    with pytest.raises(HookError) as raised:
        Proposed(config({"type": "user", "path": str(path)}))
    assert raised.value.code == NO_USER_NAMESPACE


def test_none_and_two() -> None:
    twice = config()
    twice["linux"]["namespaces"].append({"type": "user"})
    for one in (config(without="user"), twice):
        with pytest.raises(HookError) as raised:
            Proposed(one)
        assert raised.value.code == NO_USER_NAMESPACE


@pytest.mark.parametrize("path", ["/dev/null", "/proc/self/ns/net", "/nowhere", "/", "/x\0y"])
def test_what_is_no_user_namespace(path: str) -> None:
    with pytest.raises(HookError) as raised:
        Proposed(config({"type": "user", "path": path}))
    assert raised.value.code == BAD_STATE
    with Proposed(config()) as container:
        assert container.owner() == os.geteuid()


def test_the_network(other: Scratch) -> None:
    with Proposed(config(without="network")) as container:
        assert container.has_host_network()
    with Proposed(config(network("self"))) as container:
        assert container.has_host_network()
    odd = config(user(other.init.pid), {"type": "network", "path": "/dev/null"})
    with Proposed(odd) as container, pytest.raises(HookError):
        container.has_host_network()


def test_a_pods_network() -> None:
    """Both namespaces are an infra container's, who made the one within the other."""
    with Scratch(setup="check(libc.unshare(0x40000000))") as pod:
        with Proposed(config(user(pod.init.pid), network(pod.init.pid))) as container:
            assert not container.has_host_network()
        with Proposed(config(network(pod.init.pid))) as container:
            assert container.has_host_network()


@pytest.mark.parametrize(
    ("mounts", "sees"),
    [
        ([], False),
        ([{"type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup"}], False),
        ([bind("/srv")], False),
        ([bind("/sys/fs/cgroups")], False),
        ([bind("/sys")], True),
        ([bind("/")], True),
        ([bind("/sys/fs/cgroup/")], True),
        ([bind("/sys/fs/cgroup/system.slice")], True),
        ([{**bind("/sys"), "type": None}], True),
    ],
)
def test_the_cgroups(mounts: list[dict[str, Any]], sees: bool) -> None:
    with Proposed(config(mounts=mounts)) as container:
        assert container.sees_host_cgroups("") is sees
    with Proposed(config(mounts=mounts, without="cgroup")) as container:
        assert container.sees_host_cgroups("")


def storage(top: Path, driver: str, layers: str) -> dict[str, Any]:
    """The configuration of a container in the storage at `top`."""
    (top / f"{driver}-containers").mkdir()
    mark = f"{top}/run/{driver}-containers/{ID}/userdata/.containerenv"
    return {
        "root": {"path": f"{top}/{driver}/{layers}"},
        "mounts": [{"source": mark, "destination": "/run/.containerenv"}],
    }


@pytest.mark.parametrize("driver", [("overlay", "abc/merged"), ("vfs", "dir/abc")])
@pytest.mark.parametrize("file", ["containers.json", "volatile-containers.json"])
def test_the_name(driver: tuple[str, str], file: str, tmp_path: Path) -> None:
    made = storage(tmp_path, *driver)
    assert identity(made) == ID
    assert name(made) is None
    others = [{"id": "0" * 64, "names": ["other"]}, {"id": ID, "names": ["web", "more"]}]
    path = tmp_path / f"{driver[0]}-containers" / file
    path.write_text(json.dumps(others))
    assert name(made) == "web"
    for text in ("", "{}", "[1]", "[{}]", json.dumps(others[:1]), json.dumps([{"id": ID}])):
        path.write_text(text)
        assert name(made) is None
    path.write_text(json.dumps(others))
    os.chown(path, 12345, 0)
    assert name(made) is None


@pytest.mark.parametrize("root", ["", "/", "rootfs", "/a/b"])
def test_no_name_of_storage(root: str) -> None:
    made = {
        "root": {"path": root},
        "mounts": [{"source": "x", "destination": "/run/.containerenv"}],
    }
    assert identity(made) == "?"
    assert name(made) is None
    assert identity({}) == "?"
