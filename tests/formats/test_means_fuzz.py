"""What a container has, written in ways that nobody should: each file still gets an answer."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.errors import HookError
from oci_bpf_hook.formats.containers import read
from oci_bpf_hook.formats.means import lacks, misplaced
from oci_bpf_hook.text.places import Spot
from tests.support.containers import quadlet

HERE = Spot(line=1, column=1)
ASK = {"io.bpffs.profile": "xdp", "io.bpffs.path": "/run/bpf"}
WORDS = [
    *(
        "",
        "BPF",
        "CAP_BPF",
        "ALL",
        "0",
        "1000:1000",
        "root",
        "/sys/fs/bpf",
        "/sys:/sys:ro",
        ":",
        "/",
    ),
    *("LIBBPF_BPF_TOKEN_PATH=/run/bpf", "type=bind,src=/a,dst=/sys/fs/bpf", ",,=", "bind", "auto:"),
]
KEYS = [
    *("add", "drop", "name", "value", "valueFrom", "mountPath", "hostPath", "path", "runAsUser"),
    *("runAsNonRoot", "capabilities", "privileged", "type", "source", "target", "destination"),
    *("options", "bounding", "ambient", "uid", "LIBBPF_BPF_TOKEN_PATH", "volumeDevices"),
]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(WORDS) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


def some(*keys: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(keys), ANY, max_size=4)


def answered(text: str, name: str) -> None:
    try:
        found = read(text.encode(), name)
    except HookError:  # A named refusal.
        return
    for one in found:
        for engine in (None, "podman", "cri-o") if one.means else ():
            assert one.means
            listed = [*lacks(one.means, engine, {"NET_ADMIN": ["xdp"]})]
            for lack in (*listed, *misplaced(one.means, "/run/bpf", HERE)):
                assert lack.code
                assert str(lack) == f"{lack.reason}; {lack.fix}"


SPEC = some("hostPID", "hostIPC", "hostNetwork", "hostUsers", "securityContext", "volumes")
CONTAINER = some("securityContext", "env", "envFrom", "volumeMounts", "volumeDevices", "name")


@settings(deadline=None)
@given(SPEC, CONTAINER, some("io.kubernetes.cri-o.userns-mode", "userns-mode.crio.io"))
def test_pods(spec: dict[str, Any], container: dict[str, Any], more: dict[str, Any]) -> None:
    data = {"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {**ASK, **more}}}
    answered(json.dumps({**data, "spec": {**spec, "containers": [container]}}), "pod.json")


@settings(deadline=None)
@given(
    some(
        "cap_add", "cap_drop", "privileged", "user", "environment", "env_file", "devices", "volumes"
    )
)
def test_services(service: dict[str, Any]) -> None:
    answered(json.dumps({"services": {"c": {"annotations": ASK, **service}}}), "compose.json")


@settings(deadline=None)
@given(some("process", "mounts"), some("user", "capabilities", "env"))
def test_configurations(config: dict[str, Any], process: dict[str, Any]) -> None:
    data = {"annotations": ASK, "linux": {}, "process": process}
    answered(json.dumps({**data, **config}), "config.json")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *("AddCapability", "DropCapability", "Environment", "EnvironmentFile"),
                    *("EnvironmentHost", "Mount", "User", "Volume", "AddDevice", "PodmanArgs"),
                ]
            ),
            st.sampled_from([*WORDS, "-e", "--mount", "--privileged=no", "--volume=", "-v /a:/b"])
            | st.text(max_size=6),
        ),
        max_size=5,
    )
)
def test_units(lines: list[tuple[str, str]]) -> None:
    more = "".join(f"{key}={value}\n" for key, value in lines)
    answered(quadlet(ASK) + more, "c.container")
