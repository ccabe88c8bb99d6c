"""What Kubernetes refuses of a pod in a user namespace."""

import pytest

from oci_bpf_hook.formats.containers import read
from tests.support.containers import pod

ASK = {"io.bpffs.profile": "xdp"}


@pytest.mark.parametrize("key", ["hostPID", "hostIPC", "hostNetwork"])
def test_what_kubernetes_refuses(key: str) -> None:
    (one,) = read(pod(ASK, capabilities=["BPF"], spec={key: True}).encode(), "pod.yaml")
    (fault,) = one.lacks
    assert fault.text.startswith(f"Kubernetes refuses a pod with hostUsers: false and {key}: true")
    assert ("UserNamespacesHostNetworkSupport" in fault.text) == (key == "hostNetwork")
    for spec in ({key: False}, {key: "true"}):
        (one,) = read(pod(ASK, capabilities=["BPF"], spec=spec).encode(), "pod.yaml")
        assert not any("refuses" in fault.text for fault in one.lacks)


@pytest.mark.parametrize("users", [None, True])
def test_what_kubernetes_refuses_after_the_fix(users: object) -> None:
    """Who is told to set hostUsers: false is told at once what else that takes."""
    spec = {"hostPID": True, "hostUsers": users}
    (one,) = read(pod(ASK, capabilities=["BPF"], spec=spec).encode(), "pod.yaml")
    first, second = one.lacks
    assert first.text.endswith("set hostUsers: false in its spec")
    assert second.text.startswith("Kubernetes refuses a pod with hostUsers: false and hostPID")
    given = {**ASK, "userns-mode.crio.io": "auto"}
    (one,) = read(pod(given, capabilities=["BPF"], spec=spec).encode(), "pod.yaml")
    assert one.lacks == ()


def test_all_that_kubernetes_refuses() -> None:
    spec = {"hostPID": True, "hostIPC": True, "hostNetwork": True}
    container = {"name": "c", "volumeDevices": [{"name": "d", "devicePath": "/dev/d"}]}
    text = pod(ASK, spec={**spec, "containers": [container]})
    (one,) = read(text.encode(), "pod.yaml")
    assert len(one.lacks) == 4
    lines = text.splitlines()
    for fault, key in zip(one.lacks, (*spec, "volumeDevices"), strict=True):
        assert key in fault.text
        # It stands at the value, which is in the next line if that is a list.
        assert any(key in line for line in lines[fault.line - 2 : fault.line])
