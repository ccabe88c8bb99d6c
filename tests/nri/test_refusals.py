"""Who gets nothing: the creation fails with the hook's sentence and code, and nothing is left."""

import subprocess
from collections.abc import Iterator

import pytest

from oci_bpf_hook.errors import HookError
from oci_bpf_hook.nri.pod import free
from oci_bpf_hook.nri.wire.messages import Mount
from oci_bpf_hook.nri.wire.protobuf import Message, encode
from oci_bpf_hook.oci.cdi import PLACE
from tests.support.nri import (
    ASK,
    Plugin,
    Pod,
    Session,
    field,
    held,
    mount_of,
    of_process,
    taken_away,
)
from tests.support.policy import EVERYTHING, POLICY, audited, in_force
from tests.support.scratch import Scratch, io
from tests.support.users import ALICE, users


@pytest.fixture(scope="module")
def plugin() -> Iterator[Plugin]:
    with Plugin() as found:
        yield found


@pytest.fixture(scope="module")
def begun(plugin: Plugin) -> Iterator[Session]:
    with plugin.session() as session:
        yield session


def refused(begun: Session, request: bytes, code: int, *words: str) -> str:
    """The sentence of a creation that fails with this `code`."""
    answer = begun.call("CreateContainer", request)
    assert (answer.code, answer.payload) == (2, b"")
    assert answer.message.startswith("oci-bpf-hook: ")
    assert answer.message.endswith(f" (exit code {code})"), answer.message
    assert [word for word in words if word not in answer.message] == [], answer.message
    assert "Traceback" not in answer.message
    assert held() == []
    return answer.message


@pytest.mark.parametrize(
    ("asks", "code", "words"),
    [
        (io(typo="x"), 10, "io.bpffs.typo"),
        (io(delegate_cmds="prog_lod"), 11, "prog_load"),
        ({**io(delegate_cmds="prog_lod"), **io(typo="x")}, 10, "io.bpffs.typo"),
        (io(profile="nothing"), 11, "nothing"),
        (io(path="/opt"), 10, "delegates nothing"),
    ],
)
def test_a_wrong_request(
    begun: Session, pod: Pod, asks: dict[str, str], code: int, words: str
) -> None:
    identity, request = pod.creation(asks)
    refused(begun, request, code, words)
    last = audited()[-1]
    assert (last["container"], last["outcome"], last["code"]) == (identity, "refused", code)


def test_the_policy(begun: Session, pod: Pod) -> None:
    identity, request = pod.creation(io(delegate_progs="kprobe", delegate_cmds="prog_load"))
    with in_force(None):
        refused(begun, request, 12, "kprobe")
    last = audited()[-1]
    assert (last["container"], last["code"], last["engine"]) == (identity, 12, "containerd")
    assert last["requester"]["pod"] == "web"


def test_a_policy_with_an_error_is_the_administrators_matter(begun: Session, pod: Pod) -> None:
    with in_force("version: 1\nrules: [secret]\n"):
        said = refused(begun, pod.creation()[1], 18, "the administrator's policy has an error")
        assert "secret" not in said
        assert str(POLICY) not in said


def test_the_policy_is_read_again(begun: Session, pod: Pod) -> None:
    with in_force("version: 1\nrules: [{name: none, deny: ask the platform team}]\n"):
        refused(begun, pod.creation()[1], 12, "ask the platform team")


def test_no_user_namespace(begun: Session, pod: Pod) -> None:
    named = of_process(pod.pid)
    for path in (None, ""):
        theirs = {kind: at for kind, at in named.items() if kind != "user"}
        if path is not None:
            theirs["user"] = path
        refused(begun, pod.creation(namespaces=theirs)[1], 14, "hostUsers: false")
    theirs = {**named, "user": "/proc/self/ns/user"}
    refused(begun, pod.creation(namespaces=theirs)[1], 14, "hostUsers: false")


@pytest.mark.parametrize("name", ["net", "mnt", "pid"])
def test_another_namespace(begun: Session, pod: Pod, name: str) -> None:
    named = {**of_process(pod.pid), "user": f"/proc/{pod.pid}/ns/{name}"}
    refused(begun, pod.creation(namespaces=named)[1], 17, "no user namespace")


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/null", "/etc"])
def test_no_namespace_at_all(begun: Session, pod: Pod, path: str) -> None:
    named = {**of_process(pod.pid), "user": path}
    refused(begun, pod.creation(namespaces=named)[1], 17, path)


def test_a_pod_that_has_gone(begun: Session, pod: Pod) -> None:
    named = {**of_process(pod.pid), "user": "/proc/4194304/ns/user"}
    refused(begun, pod.creation(namespaces=named)[1], 16, "No such file or directory")


def test_a_namespace_within_the_pods(begun: Session, pod: Pod) -> None:
    """Whoever is in a pod can make one, and it isn't what the engine made."""
    inner = ["nsenter", "--user", "--target", str(pod.pid), "--", "unshare", "--user", "--"]
    command = [*inner, "sh", "-c", "echo; exec tail -f /dev/null"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"\n"
            named = {**of_process(pod.pid), "user": f"/proc/{process.pid}/ns/user"}
            refused(begun, pod.creation(namespaces=named)[1], 14, "directly below")
        finally:
            process.kill()


def test_a_users_namespace(begun: Session, pod: Pod) -> None:
    alone = ("unshare", "--user", "--map-root-user", "--")
    command = [*ALICE.running(alone), "sh", "-c", "echo; exec tail -f /dev/null"]
    with users(), subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"\n"
            named = {**of_process(pod.pid), "user": f"/proc/{process.pid}/ns/user"}
            refused(begun, pod.creation(namespaces=named)[1], 14, "root's engine")
        finally:
            process.kill()


def test_a_namespace_without_root(begun: Session) -> None:
    with Scratch(mount=False, network=True, lowest=1) as scratch, Pod() as pod:
        named = of_process(scratch.init.pid)
        refused(begun, pod.creation(namespaces=named)[1], 14, "no root")


@pytest.mark.parametrize("identity", ["..", "a/b", "a\0b", "a b", "x" * 2000])
def test_an_id_that_is_no_name(begun: Session, pod: Pod, identity: str) -> None:
    _, request = pod.creation(identity=identity)
    refused(begun, request, 17, "no usable id")


def test_the_shim(plugin: Plugin, begun: Session, pod: Pod) -> None:
    """The plugin adds none; whoever asks for it has to have it, as from a CDI device."""
    asks = {**ASK, **io(shim="true")}
    refused(begun, pod.creation(asks)[1], 17, "nothing has added it to the container")
    alone = {8: encode({8: ["A=b", f"LD_PRELOAD={PLACE}"]})}
    refused(begun, pod.creation(asks, container=alone)[1], 17, "nothing has added it")
    mount = field(9, encode({1: PLACE, 2: "bind", 3: "/srv/shim.so", 4: ["ro", "bind"]}))
    identity, request = pod.creation(asks, container={**alone, 9: mount})
    refused(begun, request, 12, "doesn't allow the shim")
    with in_force(EVERYTHING.replace("delegate_cmds", "shim: true\n      delegate_cmds")):
        assert mount_of(begun.call("CreateContainer", request))
    taken_away(plugin, begun, identity)


def bind(destination: str, kind: str = "bind") -> Mount:
    return Mount(destination=destination, kind=kind, source="/srv", options=("rbind",))


@pytest.mark.parametrize(
    ("mount", "where"),
    [
        (bind("/opt/bpf"), "at"),
        (bind("/opt//bpf/"), "at"),
        (bind("/./opt/./bpf/."), "at"),
        (bind("/x/../opt/bpf"), "perhaps at or above"),
        (bind("/opt/x/.."), "perhaps at or above"),
        (bind("/opt/bpf", "tmpfs"), "at"),
        (bind("/opt"), "above"),
        (bind("/opt/bpf/x"), "below"),
    ],
)
def test_a_mount_that_is_in_the_way(begun: Session, pod: Pod, mount: Mount, where: str) -> None:
    theirs = field(9, encode({1: mount.destination, 2: mount.kind, 3: "/srv", 4: ["rbind"]}))
    _, request = pod.creation({**ASK, **io(path="/opt/bpf")}, container={9: theirs})
    refused(begun, request, 16, f"{where} the target directory")


@pytest.mark.parametrize(
    "mount",
    [bind("/sys", "sysfs"), bind("/opt/bpf2"), bind("/op"), bind("/dev", "tmpfs"), bind("/x/opt")],
)
def test_a_mount_that_is_not(mount: Mount) -> None:
    free("/opt/bpf", (mount,))
    free("/dev/bpf", (bind("/dev", "tmpfs"),))
    with pytest.raises(HookError):
        free("/sys/fs/bpf", (bind("/sys"),))


def test_a_request_that_is_none(begun: Session) -> None:
    for payload in (b"\x0a\xffio.bpffs.", b"\x0aio.bpffs.profile", b"\x0b io.bpffs."):
        answer = begun.call("CreateContainer", payload)
        assert answer.code == 2
        assert answer.message


def test_who_has_too_much_to_say(begun: Session, pod: Pod) -> None:
    """Nobody else is refused for it, but whoever asks is."""
    many = field(7, [b"a"] * 375_000)
    _, request = pod.creation(container={7: many})
    answer = begun.call("CreateContainer", request)
    assert (answer.code, answer.message) == (2, "the request has more than 65536 fields")
    _, request = pod.creation({}, container={7: many})
    assert begun.call("CreateContainer", request).code == 0
    started = encode({1: 6, 2: Message(request).data(1), 3: Message(request).data(2)})
    assert begun.call("StateChange", started).code == 0


def test_who_only_mentions_it(begun: Session, pod: Pod) -> None:
    _, request = pod.creation({"note": "see io.bpffs.profile", "xio.bpffs.path": "/"})
    assert begun.call("CreateContainer", request) == begun.call("StateChange", b"")
