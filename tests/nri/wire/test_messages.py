"""NRI's messages, built here by the numbers of NRI's api.proto, and read in both dialects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci_bpf_hook.nri.wire import messages, ttrpc
from oci_bpf_hook.nri.wire.messages import Mount
from oci_bpf_hook.nri.wire.protobuf import MOST, MalformedError, Message, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oci_bpf_hook.nri.wire.protobuf import Field

POD: "dict[int, Field]" = {1: "pod-id", 2: "web", 3: "uid", 4: "monitoring", 7: "runc"}
ASK = {"io.bpffs.profile": "xdp", "other": "x"}
NAMESPACES = [encode({1: "user", 2: "/proc/7/ns/user"}), encode({1: "mount"})]
MOUNT = encode({1: "/data", 2: "bind", 3: "/srv", 4: ["rbind", "ro"]})
CONTAINER: "dict[int, Field]" = {
    1: "id",
    2: "pod-id",
    3: "probe",
    5: {"label": "of the image"},
    6: {"io.kubernetes.cri.image-name": "img"},
    8: ["A=b", "C="],
    9: [MOUNT],
    11: encode({1: NAMESPACES}),
    22: encode({1: "img:latest", 2: "sha256:0"}),
}


def creation(annotations: dict[str, str]) -> bytes:
    return encode({1: encode({**POD, 6: annotations}), 2: encode(CONTAINER)})


def test_a_container_that_is_to_be_created() -> None:
    found = messages.read_create(creation(ASK))
    assert (found.id, found.name, found.image) == ("id", "probe", "img:latest")
    assert (found.pod, found.namespace, found.runtime_handler) == ("web", "monitoring", "runc")
    assert found.annotations == ASK
    assert found.engine_annotations == {"io.kubernetes.cri.image-name": "img"}
    assert found.environment == ("A=b", "C=")
    assert found.namespaces == {"user": "/proc/7/ns/user", "mount": ""}
    assert found.mounts == (
        Mount(destination="/data", kind="bind", source="/srv", options=("rbind", "ro")),
    )


def test_an_empty_one() -> None:
    found = messages.read_create(b"")
    assert (found.id, found.annotations, found.mounts, found.namespaces) == ("", {}, (), {})


@given(
    st.dictionaries(
        st.text(max_size=20) | st.sampled_from(["io.bpffs.path", "io.bpffs."]),
        st.text(max_size=20) | st.just("io.bpffs.path"),
        max_size=5,
    )
)
def test_whoever_asks_asks(annotations: dict[str, str]) -> None:
    asking = any(key.startswith("io.bpffs.") for key in annotations)
    assert messages.asks(creation(annotations)) == asking


def test_who_does_not_ask() -> None:
    assert not messages.asks(creation({"bpffs.io/service-account": "x"}))
    assert messages.asks(creation({"io.bpffs.profile": ""}))
    # Neither an image's label nor the container's own annotation is the pod's.
    labelled = {**CONTAINER, 5: {"io.bpffs.profile": "xdp"}, 6: {"io.bpffs.profile": "xdp"}}
    assert not messages.asks(encode({1: encode(POD), 2: encode(labelled)}))


def test_the_engine_configures() -> None:
    old = messages.read_configure(encode({2: "containerd", 3: "1.7.24"}))
    assert (old.runtime, old.version, old.timeout) == ("containerd", "1.7.24", 0)
    new = encode({1: "config", 2: "cri-o", 3: "1.37.0", 4: 5000, 5: 2500, 6: "v0.12.0"})
    assert messages.read_configure(new).timeout == 2.5
    # 4 CreateContainer, 6 StartContainer, 10 StopContainer, 11 RemoveContainer.
    assert messages.configured() == encode({2: 0x628})


def test_the_engine_synchronizes() -> None:
    containers = [encode({**CONTAINER, 1: f"id-{number}"}) for number in range(3)]
    payload = encode({1: [encode(POD)], 2: containers, 3: 1})
    assert messages.read_synchronize(payload) == (containers, True)
    assert messages.unstarted(containers, ["id-2", "id-0", "id"]) == {"id-0", "id-2"}
    running = encode({**CONTAINER, 1: "id-1", 4: 3})
    # A container's author may make it longer than what is read, and so may be none.
    long = encode({1: "other", 7: ["id-1"] * (MOST + 1)})
    assert messages.unstarted([long, b"\xffid-1", running, containers[0]], ["id-1"]) == set()
    assert messages.unstarted([long, containers[1]], ["id-1"]) == {"id-1"}
    assert messages.read_synchronize(b"") == ([], False)
    assert Message(messages.synchronized(more=True)).number(2) == 1
    assert messages.synchronized(more=False) == b""


@pytest.mark.parametrize(
    ("number", "event"), [(4, "CreateContainer"), (6, "StartContainer"), (10, "StopContainer")]
)
def test_events_in_both_dialects(number: int, event: str) -> None:
    old = encode({1: number, 2: encode(POD), 3: encode(CONTAINER)})
    new = encode({1: encode(POD), 2: encode(CONTAINER)})
    assert messages.read_event("StateChange", old) == (event, "id")
    assert messages.read_event(event, new) == (event, "id")


def test_whom_an_event_concerns() -> None:
    container = encode({1: "a1", 7: ["x"] * 9})
    payload = encode({1: 6, 3: container})
    for method in ("StateChange", "StartContainer"):
        assert not messages.concerns(method, payload, [])
        assert not messages.concerns(method, payload, ["b2"])
        assert messages.concerns(method, payload, ["b2", "a1"])
    asks, label = encode({6: {"io.bpffs.path/x": ""}}), encode({5: {"io.bpffs.path": ""}})
    for pod, concerned in ((asks, True), (label, False)):
        new, old = encode({1: pod, 2: container}), encode({1: 6, 2: pod, 3: container})
        assert messages.concerns("StartContainer", new, []) is concerned
        assert messages.concerns("StateChange", old, []) is concerned


def test_events_that_are_not_ours() -> None:
    for number in (0, 1, 7, 14, 15, 1 << 40):
        assert messages.read_event("StateChange", encode({1: number}))[0] == ""


def test_we_register() -> None:
    (packet,) = ttrpc.Packets().feed(messages.register(1, "bpf", "80"))
    request = ttrpc.read_request(packet.data or b"")
    assert (request.service, request.method) == (
        "nri.pkg.api.v1alpha1.Runtime",
        "RegisterPlugin",
    )
    message = Message(request.payload)
    assert (message.text(1), message.text(2), message.text(3)) == ("bpf", "80", "v0.12.0")


def test_an_adjustment() -> None:
    mount = Mount(destination="/bpf", kind="bind", source="/run/x", options=("bind", "nosuid"))
    adjust = Message(messages.adjusted(mount, {"A": "b"})).message(1)
    (added,) = adjust.messages(3)
    assert (added.text(1), added.text(2), added.text(3)) == ("/bpf", "bind", "/run/x")
    assert added.texts(4) == ("bind", "nosuid")
    assert adjust.pairs(4) == {"A": "b"}


@given(st.binary(max_size=300))
def test_anything_is_read_or_is_malformed(data: bytes) -> None:
    for read in (messages.read_create, messages.read_configure, messages.read_synchronize):
        try:
            read(data)
        except MalformedError:
            continue
