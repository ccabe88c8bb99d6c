"""The hook without any privilege on the host: in the container, or beside a rootless engine."""

import json
import socket
import subprocess
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from oci_bpf_hook.broker import client
from oci_bpf_hook.broker.client import connect
from oci_bpf_hook.broker.making import Making
from oci_bpf_hook.broker.wire import Ask
from oci_bpf_hook.container.namespaces import Container
from oci_bpf_hook.delegation.masks import Grant
from oci_bpf_hook.errors import (
    BAD_ANNOTATION,
    BAD_STATE,
    MOUNT_FAILED,
    NO_BROKER,
    NOT_AS_GRANTED,
    REFUSED,
    UNKNOWN_NAME,
    HookError,
)
from oci_bpf_hook.paths import SOCKET
from tests.support.broker import Broker
from tests.support.policy import audited, in_force
from tests.support.scratch import (
    ENVIRONMENT,
    FIRST_ID,
    Scratch,
    assert_failed,
    assert_granted,
    bpf_mounts,
    install,
    io,
    run_hook,
    wait_for_hooks,
)

ASK = io(delegate_cmds="map_create:prog_load")
Result = subprocess.CompletedProcess[str]


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


def inside(container: Scratch, annotations: dict[str, str], **changes: object) -> Result:
    """Run the hook as a runtime does at createContainer: in there, and the pid is 0 or 1."""
    launcher = container.outside / "installed"
    if not launcher.exists():
        install(launcher)
    state = container.state(annotations, **{"pid": 0, **changes})
    return run_hook(state, prefix=container.entering(), launcher=launcher / "oci-bpf-hook")


def without_broker() -> None:
    """Not even one that has been killed."""
    Path(SOCKET).unlink(missing_ok=True)


# ---- what it gives ---------------------------------------------------------------------------


def test_at_create_container(broker: Broker, container: Scratch) -> None:
    assert_granted(container, inside(container, ASK))
    # Whoever asks again has it.
    before = len(audited())
    assert_granted(container, inside(container, ASK, pid=1))
    assert len(audited()) == before


def test_all_that_can_be_asked_for(broker: Broker, container: Scratch) -> None:
    wanted = io(
        delegate_cmds="any,!btf_load",
        delegate_maps="0x5",
        path="/opt/new/deep",
        mode="0750",
        on_unknown="drop",
        delegate_progs="xdp",
    )
    result = inside(container, wanted)
    assert (result.returncode, result.stderr) == (0, "")
    (mount,) = container.mounts()
    assert mount.split(" ")[4] == f"{container.root}/opt/new/deep"
    assert "delegate_progs=xdp" in mount
    status = container.enter("stat", "-c", "%u:%g %a", f"{container.root}/opt/new/deep")
    assert status.stdout == "0:0 750\n"


def test_another_delegation_goes_over_it(broker: Broker, container: Scratch) -> None:
    assert_granted(container, inside(container, ASK))
    result = inside(container, io(delegate_cmds="map_create"))
    assert (result.returncode, result.stderr) == (0, "")
    assert len(container.mounts()) == 2


def test_both_stages(broker: Broker, container: Scratch) -> None:
    """createRuntime as the host's root, createContainer from inside: one mount."""
    assert_granted(container, container.hook(ASK))
    assert_granted(container, inside(container, ASK))


def test_both_stages_without_a_broker(container: Scratch) -> None:
    """Only the host can have mounted what is there."""
    without_broker()
    assert_granted(container, container.hook(ASK))
    assert_granted(container, inside(container, ASK))


def test_what_is_there_is_the_hosts() -> None:
    """A bpffs whose delegation is of no use in the container isn't one that it has."""
    options = f"nosuid,nodev,noexec,uid={FIRST_ID},gid={FIRST_ID},delegate_cmds=any"
    script = f'mount -t bpf -o {options} none "$5/sys/fs/bpf" && exec "$@"'
    with Scratch(prefix=("unshare", "-m", "sh", "-c", script, "sh")) as container:
        before = len(container.mounts())
        without_broker()
        result = inside(container, ASK)
        assert (result.returncode, len(container.mounts())) == (NO_BROKER, before)
        with Broker():
            result = inside(container, ASK)
        assert (result.returncode, len(container.mounts())) == (0, before + 1)


def test_the_name_in_a_pod(broker: Broker, container: Scratch) -> None:
    names = {"io.kubernetes.container.name": "web"}
    asked = {**names, "io.bpffs.delegate_cmds/web": "map_create:prog_load"}
    assert_granted(container, inside(container, asked | {"io.bpffs.delegate_cmds": "btf_load"}))


def test_a_rootless_engines_create_runtime(broker: Broker) -> None:
    """The hook and the container in one user namespace, or in one below it."""
    for own in ((), ("-U", "-r")):
        with Scratch() as engine:
            launcher = install(engine.outside / "installed")
            with engine.running("unshare", "-m", *own) as process:
                state = engine.state(ASK, pid=process.pid)
                result = run_hook(state, prefix=engine.entering(), launcher=launcher)
                assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
                (mount,) = bpf_mounts(process.pid)
                assert mount.endswith(",delegate_cmds=map_create:prog_load")
                # A token is made only by whom the file system belongs to.
                assert "nosuid,nodev,noexec" in mount


# ---- what it refuses -------------------------------------------------------------------------


def test_no_broker(container: Scratch) -> None:
    without_broker()
    words = ("the broker", "No such file", "systemctl enable --now oci-bpf-hook-broker.socket")
    wanted = {**ASK, **io(path="/opt/new/deep")}
    assert_failed(inside(container, wanted), NO_BROKER, *words, container=container)


def test_nobody_listens(container: Scratch) -> None:
    with Broker() as broker:
        broker.kill()
        result = inside(container, ASK)
    assert_failed(result, NO_BROKER, "Connection refused", container=container)


def test_as_many_wait_as_the_kernel_keeps(tmp_path: Path) -> None:
    """One more waits with them, and isn't told that there is nobody."""
    path = str(tmp_path / "s")
    came: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen(0)
        first = connect(path, 30)
        thread = Thread(target=lambda: came.append(listening.accept()[0]))
        # With nobody to accept there is no room, for as long as it is said.
        with pytest.raises(BlockingIOError):
            connect(path, 1)
        thread.start()
        second = connect(path, 30)
        thread.join()
    for sock in (first, second, *came):
        sock.close()


def test_the_brokers_reason_is_the_hooks(broker: Broker, container: Scratch) -> None:
    wanted = {**ASK, **io(path="/opt/new/deep")}
    for annotations, code, words in (
        ({**wanted, **io(delegate_maps="hsah")}, UNKNOWN_NAME, 'did you mean "hash"'),
        ({**wanted, **io(profile="no-such")}, UNKNOWN_NAME, "no profile"),
        ({**wanted, **io(mode="9")}, BAD_ANNOTATION, "isn't an octal mode"),
    ):
        assert_failed(inside(container, annotations), code, words, container=container)
    with in_force("version: 1\nrules: [{name: shut, deny: not today}]\n"):
        result = inside(container, wanted)
    assert_failed(result, REFUSED, 'rule "shut" denies it: not today', container=container)


def test_a_request_that_is_too_long(broker: Broker, container: Scratch) -> None:
    wanted = io(delegate_cmds=":".join(f"{number:#x}" for number in range(20_000)))
    assert_failed(inside(container, wanted), BAD_ANNOTATION, "65536", container=container)


def test_a_path_of_traps(broker: Broker) -> None:
    setup = 'os.symlink("/etc", f"{root}/opt/link"); open(f"{root}/opt/file", "w").close()'
    with Scratch(setup=setup) as container:
        for path in ("/opt/link", "/opt/link/x", "/opt/file"):
            result = inside(container, {**ASK, **io(path=path)})
            assert_failed(result, MOUNT_FAILED, "the target directory", container=container)


def test_no_root_filesystem(broker: Broker, container: Scratch) -> None:
    result = inside(container, ASK, root=None)
    assert_failed(result, BAD_STATE, "can't be found", container=container)


# ---- a broker that isn't one -----------------------------------------------------------------

GRANTED = {
    "version": 1,
    "granted": {"delegate_cmds": "0x21"},
    "rule": "r",
    "dropped": [],
    "trimmed": [],
}
MOUNTED = {"version": 1, "mounted": True}


@contextmanager
def at_its_place() -> Iterator[socket.socket]:
    """A socket that listens where the broker's does."""
    path = Path(SOCKET)
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.parent.chmod(0o755)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(SOCKET)
        path.chmod(0o666)
        listening.listen()
        try:
            yield listening
        finally:
            path.unlink()


@contextmanager
def answering(*answers: object, fds: tuple[int, ...] = ()) -> Iterator[None]:
    """Something that answers so at the broker's place, the last time with `fds`."""
    with at_its_place() as listening:
        thread = Thread(target=_answer, args=(listening, answers, fds))
        thread.start()
        try:
            yield
        finally:
            thread.join()


def _answer(listening: socket.socket, answers: tuple[object, ...], fds: tuple[int, ...]) -> None:
    sock, _ = listening.accept()
    with sock:
        for number, answer in enumerate(answers, 1):
            if not sock.recv(1 << 17):
                return
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            ancillary = []
            if fds and number == len(answers):
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
            sock.sendmsg([data], ancillary)


ODD = {
    "nothing": ((), "closed the connection"),
    "no JSON": ((b"x",), "isn't JSON"),
    "a list": (([],), "isn't a JSON object"),
    "version 2": (({**GRANTED, "version": 2},), "different releases"),
    "another kind": (({**GRANTED, "granted": {"delegate": "0x1"}},), "grants an unknown option"),
    "an error without a reason": (({"version": 1, "code": 0, "problems": []},), "restart"),
    "no mount": ((GRANTED, MOUNTED), "sent no mount"),
    "a mount too early": ((MOUNTED,), "has the keys"),
    "hanging up": ((GRANTED,), "closed the connection"),
}


@pytest.mark.parametrize(("answers", "words"), ODD.values(), ids=ODD)
def test_odd_answers(container: Scratch, answers: tuple[object, ...], words: str) -> None:
    with answering(*answers):
        result = inside(container, {**ASK, **io(path="/opt/new/deep")})
    assert_failed(result, NO_BROKER, words, container=container)
    # There is one, and it needn't be enabled.
    assert "systemctl enable" not in result.stderr


def test_one_that_is_too_slow(container: Scratch) -> None:
    """As on a host under load: it runs, and to enable it would change nothing."""
    with at_its_place():
        result = inside(container, {**ASK, **io(path="/opt/new/deep")})
    words = ("the broker runs, but hasn't answered within 8 seconds", "journalctl -u ")
    assert_failed(result, NO_BROKER, *words, container=container)
    assert "systemctl enable" not in result.stderr


def test_one_whose_queue_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook at precreate asks, too, and makes the connection itself."""
    monkeypatch.setattr(client, "ASKING", 1)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen(0)
        with (
            closing(connect(path, 30)),
            pytest.raises(HookError, match="the broker runs, but hasn't"),
        ):
            client.decision(Ask.__new__(Ask), broker=path)


def test_something_else_than_the_mount(container: Scratch) -> None:
    """An fd of any kind goes to move_mount(2), and what that makes of it is read back."""
    wanted = {**ASK, **io(path="/opt/new/deep")}
    with open("/dev/null", "rb") as null, answering(GRANTED, MOUNTED, fds=(null.fileno(),)):
        result = inside(container, wanted)
    assert_failed(result, MOUNT_FAILED, "move_mount", container=container)


def test_another_mount_than_was_granted(container: Scratch) -> None:
    """The hook reads back what it has attached, whoever made it."""
    wanted = {**ASK, **io(path="/opt/new/deep")}
    with Container(container.init.pid) as joined, Making(joined) as half:
        mount = half.make(Grant(masks={"delegate_cmds": 0x20}, path="/", mode=0o1777))
        with answering(GRANTED, MOUNTED, fds=(mount,)):
            result = inside(container, wanted)
    words = ("delegate_cmds is", "prog_load", "should be 0x21")
    assert_failed(result, NOT_AS_GRANTED, *words, container=container)


def test_it_is_killed_while_it_waits(container: Scratch) -> None:
    """As by a runtime's timeout: the container half notices, and takes back what it has made."""
    launcher = install(container.outside / "installed")
    state = json.dumps(container.state({**ASK, **io(path="/opt/new/deep")}, pid=0))
    with at_its_place() as listening:
        process = subprocess.Popen(
            [*container.entering(), str(launcher)],
            stdin=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert process.stdin
        process.stdin.write(state)
        process.stdin.close()
        sock, _ = listening.accept()
        with sock:
            assert sock.recv(1 << 16)
            assert (container.root / "opt" / "new" / "deep").is_dir()
            process.kill()
            process.wait()
            wait_for_hooks()
    container.assert_untouched()
