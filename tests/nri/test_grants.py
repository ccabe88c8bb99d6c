"""What a container gets: the mount where the engine finds it, the answer, and the record."""

import os
import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.nri.wire.protobuf import encode
from oci_bpf_hook.paths import PODS
from tests.support.nri import (
    ASK,
    Plugin,
    Pod,
    Session,
    field,
    held,
    mount_of,
    nothing_left,
    of_process,
    taken_away,
)
from tests.support.policy import audited, in_force
from tests.support.scratch import FIRST_ID, bpf_mounts, io

OPTIONS = ("bind", "nosuid", "nodev", "noexec")
MATCHING = """\
version: 1
rules:
  - name: theirs
    match: {namespace: monitoring, pod: web, container: probe, image: "*/img:*", user: [0],
      host_network: false, host_cgroup: false, annotations: {team: net}}
    allow: {confined: false, delegate_cmds: [map_create], delegate_maps: [hash]}
"""


def granted(begun: Session, pod: Pod, annotations: dict[str, str]) -> tuple[str, str]:
    """The id and the source of the mount of a container that gets what it asks for."""
    identity, request = pod.creation(annotations)
    answer = begun.call("CreateContainer", request)
    assert not answer.code, answer.message
    path, source, options, _ = mount_of(answer)
    assert (path, options) == (annotations.get("io.bpffs.path", "/sys/fs/bpf"), OPTIONS)
    assert source == f"{PODS}/{identity}/bpf"
    return identity, source


def test_the_mount(pod: Pod) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        identity, source = granted(begun, pod, ASK)
        (line,) = [line for line in bpf_mounts() if source in line]
        assert line.split()[-1].endswith(",delegate_cmds=map_create,delegate_maps=hash")
        assert {"rw", "nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))
        status = os.stat(source)
        assert (status.st_uid, status.st_gid, status.st_mode) == (FIRST_ID, FIRST_ID, 0o41777)
        room = os.stat(PODS)
        assert (room.st_uid, room.st_mode & 0o777) == (0, 0o700)
        last = audited()[-1]
        assert (last["container"], last["outcome"], last["engine"]) == (
            *(identity, "granted", "containerd"),
        )
        words = ("namespace", "pod", "container")
        assert [last["requester"][word] for word in words] == ["monitoring", "web", "probe"]
        taken_away(plugin, begun, identity)
    assert nothing_left()


def test_nothing_of_it_propagates(pod: Pod) -> None:
    """Neither the tmpfs's content nor a mount in it appears where /run is shared."""
    with Plugin() as plugin, plugin.session() as begun:
        identity, _ = granted(begun, pod, ASK)
        (line,) = [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if line.split()[4] == PODS
        ]
        assert "shared:" not in line
        taken_away(plugin, begun, identity)


def test_mode_and_path(pod: Pod) -> None:
    asks = {**ASK, **io(path="/opt/bpf", mode="0750")}
    identity, request = pod.creation(asks)
    with Plugin() as plugin, plugin.session() as begun:
        path, source, _, variables = mount_of(begun.call("CreateContainer", request))
        assert (path, variables) == ("/opt/bpf", {"LIBBPF_BPF_TOKEN_PATH": "/opt/bpf"})
        assert os.stat(source).st_mode & 0o7777 == 0o750
        taken_away(plugin, begun, identity)


def test_a_variable_of_the_containers_own_stays(pod: Pod) -> None:
    environment = {8: encode({8: ["LIBBPF_BPF_TOKEN_PATH=/elsewhere"]})}
    identity, request = pod.creation({**ASK, **io(path="/opt/bpf")}, container=environment)
    with Plugin() as plugin, plugin.session() as begun:
        assert mount_of(begun.call("CreateContainer", request))[3] == {}
        taken_away(plugin, begun, identity)


def test_what_the_engine_says_is_matched(pod: Pod) -> None:
    asks = {**ASK, "team": "net", "io.kubernetes.cri.sandbox-namespace": "spoofed"}
    with in_force(MATCHING), Plugin() as plugin, plugin.session() as begun:
        identity, _ = granted(begun, pod, asks)
        taken_away(plugin, begun, identity)
        # NRI 0.12.2 tells the image in a field of its own, which counts more.
        image = {22: field(22, encode({1: "docker.io/library/other:latest"}))}
        _, request = pod.creation(asks, container=image)
        answer = begun.call("CreateContainer", request)
        assert "no rule of the policy" in answer.message
        # The host's cgroups, or its network.
        _, request = pod.creation(asks, container={9: _mount("/sys/fs/cgroup", "/cgroup")})
        assert "no rule of the policy" in begun.call("CreateContainer", request).message
        _, request = pod.creation(asks, container={9: _mount("/", "/host")})
        assert "no rule of the policy" in begun.call("CreateContainer", request).message


def _mount(source: str, destination: str) -> bytes:
    return field(9, encode({1: destination, 2: "bind", 3: source, 4: ["rbind"]}))


@pytest.mark.parametrize("kind", ["network", "cgroup"])
def test_the_hosts_namespaces(pod: Pod, kind: str) -> None:
    """A namespace that the engine doesn't name is the host's."""
    named = {name: path for name, path in of_process(pod.pid).items() if name != kind}
    _, request = pod.creation({**ASK, "team": "net"}, namespaces=named)
    with in_force(MATCHING), Plugin() as plugin, plugin.session() as begun:
        assert "no rule of the policy" in begun.call("CreateContainer", request).message


def test_a_cgroup_namespace_that_is_anothers(pod: Pod) -> None:
    named = {**of_process(pod.pid), "cgroup": "/proc/self/ns/cgroup"}
    _, request = pod.creation({**ASK, "team": "net"}, namespaces=named)
    with in_force(MATCHING), Plugin() as plugin, plugin.session() as begun:
        assert "no rule of the policy" in begun.call("CreateContainer", request).message


def test_an_engine_that_nobody_knows(pod: Pod) -> None:
    """Which annotations it sets itself isn't known, so these don't tell the image."""
    identity, request = pod.creation({**ASK, "team": "net"})
    with in_force(MATCHING), Plugin() as plugin, plugin.session() as begun:
        assert begun.call("Configure", encode({2: "another"})).code == 0
        assert "no rule of the policy" in begun.call("CreateContainer", request).message
        assert begun.call("Configure", encode({2: "containerd"})).code == 0
        assert mount_of(begun.call("CreateContainer", request))
        taken_away(plugin, begun, identity)


def test_the_hosts_network_by_its_path(pod: Pod) -> None:
    named = {**of_process(pod.pid), "network": "/proc/self/ns/net"}
    _, request = pod.creation({**ASK, "team": "net"}, namespaces=named)
    with in_force(MATCHING), Plugin() as plugin, plugin.session() as begun:
        assert "no rule of the policy" in begun.call("CreateContainer", request).message


def test_each_container_by_its_name(pod: Pod) -> None:
    asks = {f"{key}/probe": text for key, text in ASK.items()}
    with Plugin() as plugin, plugin.session() as begun:
        identity, _ = granted(begun, pod, asks)
        other = {3: field(3, b"sidecar")}
        _, request = pod.creation(asks, container=other)
        assert begun.call("CreateContainer", request).payload == b""
        # Its author can't say which one it is.
        lies = {**asks, "io.kubernetes.container.name": "probe"}
        _, request = pod.creation(lies, container=other)
        assert begun.call("CreateContainer", request).payload == b""
        assert held() == [identity]
        taken_away(plugin, begun, identity)


def test_an_engine_in_another_mount_namespace(pod: Pod) -> None:
    """As for a plugin in a pod of its own: it sees neither the engine's /run nor its mounts."""
    alone = ("unshare", "--mount", "--propagation", "private", "--")
    hidden = ("sh", "-c", 'mount -t tmpfs none /run/oci-bpf-hook && exec "$@"', "sh")
    os.makedirs("/run/oci-bpf-hook", exist_ok=True)
    with Plugin(prefix=(*alone, *hidden)) as plugin, plugin.session() as begun:
        identity, source = granted(begun, pod, ASK)
        theirs = Path(f"/proc/{plugin.process.pid}/mountinfo").read_text()
        assert source in " ".join(bpf_mounts())
        assert source not in theirs
        taken_away(plugin, begun, identity)


def test_a_tmpfs_that_is_lost_is_made_again(pod: Pod) -> None:
    with Plugin() as plugin, plugin.session() as begun:
        identity, _ = granted(begun, pod, ASK)
        taken_away(plugin, begun, identity)
        subprocess.run(["umount", PODS], check=True)
        identity, _ = granted(begun, pod, ASK)
        taken_away(plugin, begun, identity)
