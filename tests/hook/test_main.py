"""The hook as a runtime runs it: the state, the bundle and the annotations it is given.

Each test goes through the launcher, with a real container of namespaces.  The process
that the launcher becomes is in test_hook_process, hostile root filesystems in
test_hook_paths, kernels that answer otherwise in test_hook_kernel, processes that die in
test_hook_deaths.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.imports import loaded
from tests.support.policy import audited
from tests.support.scratch import (
    NO_BTF,
    Scratch,
    assert_failed,
    assert_granted,
    header_of_6_9,
    run_hook,
)
from tests.support.syslog import DevLog
from tests.support.tracer import reaped

ASK = {"io.bpffs.delegate_cmds": "map_create:prog_load"}


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


# ---- the state -------------------------------------------------------------------------

STATES = {
    "not JSON": (b"state", "isn't JSON"),
    "empty": (b"", "isn't JSON"),
    "cut short": (b'{"id": "x", "annotations": {', "isn't JSON"),
    "not UTF-8": (b'{"id": "\xff"}', "isn't JSON"),
    "two values": (b"{} {}", "more than one JSON value"),
    "nested too deeply": (b"[" * 100_000, "nested too deeply"),
    "over 1 MiB": (b'{"annotations": {"io.bpffs.x": "%s"}}' % (b"x" * (1 << 20)), "bytes"),
    "over what a pipe holds": (b"x" * (3 << 20), "bytes"),
    "a list": (b"[]", "isn't a JSON object"),
    "annotations a list": (b'{"annotations": ["io.bpffs.path"]}', "aren't strings"),
    "an annotation a number": (b'{"annotations": {"io.bpffs.mode": 755}}', "aren't strings"),
    "nothing but annotations": (json.dumps({"annotations": ASK}).encode(), "no usable id"),
}


@pytest.mark.parametrize(("state", "words"), STATES.values(), ids=STATES)
def test_bad_state(state: bytes, words: str) -> None:
    assert_failed(run_hook(state), 17, words)


CHANGES: dict[str, tuple[dict[str, object], str]] = {
    "no pid": ({"pid": None}, "has no pid"),
    "pid a string": ({"pid": "1234"}, "has no pid"),
    "pid true": ({"pid": True}, "has no pid"),
    "pid below 0": ({"pid": -7}, "no usable pid"),
    "pid huge": ({"pid": 10**400}, "no usable pid"),
    "no id": ({"id": None}, "no usable id"),
    "id a path": ({"id": "../x"}, "no usable id"),
    "id two lines": ({"id": "x\nroot: y"}, r"x\nroot: y"),
    "running": ({"status": "running"}, "createRuntime"),
    "no bundle": ({"bundle": None}, "no bundle"),
    "bundle relative": ({"bundle": "b"}, "no bundle"),
    "root a number": ({"root": 1}, "a root that isn't a path"),
    "root with NUL": ({"root": "/\0"}, "a root that isn't a path"),
    "bundle two lines": ({"bundle": "/x\noci-bpf-hook: y", "root": None}, r"'/x\noci-bpf-hook: y/"),
    "bundle with escapes": ({"bundle": "/x\x1b[2J\u202e", "root": None}, r"'/x\x1b[2J\u202e/"),
    "root missing": ({"root": "/nowhere"}, "root filesystem isn't at"),
    "root the host's": ({"root": "/"}, "no runtime has mounted it"),
    "root no mount": ({"root": "/usr"}, "no runtime has mounted it"),
    "root a file": ({"root": "/etc/passwd"}, "root filesystem isn't at"),
    "root a magic link": ({"root": "/proc/self/root"}, "root filesystem isn't at"),
}


@pytest.mark.parametrize("pid", [0, 1])
def test_inside_a_container_that_is_none(container: Scratch, pid: int) -> None:
    """At createContainer, with the host's user namespace."""
    result = container.hook(ASK, pid=pid)
    assert_failed(result, 14, "no user namespace of its own", container=container)


@pytest.mark.parametrize(("changes", "words"), CHANGES.values(), ids=CHANGES)
def test_bad_state_of_a_container(
    container: Scratch, changes: dict[str, object], words: str
) -> None:
    result = container.hook(ASK, **changes)
    assert_failed(result, 17, words, container=container)


@pytest.mark.parametrize("key", ["id", "pid", "bundle", "status"])
def test_a_key_missing(container: Scratch, key: str) -> None:
    state = container.state(ASK)
    del state[key]
    assert_failed(run_hook(state), 17, "the state on stdin", container=container)


def test_a_process_that_has_died(container: Scratch) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    assert_failed(container.hook(ASK, pid=gone.pid), 17, "is gone", container=container)


def test_a_process_that_is_a_zombie(container: Scratch) -> None:
    reaped(container.init.pid)
    assert_failed(container.hook(ASK), 17, "is gone", container=container)


def test_the_pid_is_a_host_process_by_now(container: Scratch) -> None:
    assert_failed(container.hook(ASK, pid=os.getpid()), 14, "--userns=auto", container=container)


def test_the_pid_is_in_another_container_by_now(container: Scratch) -> None:
    with Scratch() as other:
        result = container.hook(ASK, pid=other.init.pid)
        assert_failed(result, 17, "no runtime has mounted it there", container=container)
        other.assert_untouched()


# ---- the bundle ------------------------------------------------------------------------


def _no_bundle(container: Scratch) -> None:
    container.bundle.rmdir()


def _config(text: str) -> "Bundle":
    def write(container: Scratch) -> None:
        (container.bundle / "config.json").write_text(text)

    return write


def _fifo(container: Scratch) -> None:
    os.mkfifo(container.bundle / "config.json")


def _directory(container: Scratch) -> None:
    (container.bundle / "config.json").mkdir()


def _symlink(container: Scratch) -> None:
    container.config(ASK)
    (container.bundle / "config.json").rename(container.bundle / "other")
    (container.bundle / "config.json").symlink_to("other")


def _of_another_user(container: Scratch) -> None:
    container.config(ASK)
    os.chown(container.bundle / "config.json", 1000, 1000)


def _of_another_container(container: Scratch) -> None:
    container.config({"io.bpffs.delegate_cmds": "any"}, root={"path": "/"})


Bundle = Callable[[Scratch], None]
BUNDLES: dict[str, tuple[Bundle, str]] = {
    "no bundle": (_no_bundle, "No such file"),
    "no config.json": (lambda container: None, "No such file"),
    "not JSON": (_config("{"), "config.json: "),
    "no object": (_config("[]"), "isn't a JSON object"),
    "huge": (_config("{}" + " " * (4 << 20)), "too large"),
    "a fifo": (_fifo, "not a regular file"),
    "a directory": (_directory, "not a regular file"),
    "a symlink": (_symlink, "symbolic link"),
    "not root's": (_of_another_user, "not root's"),
    "another container's": (_of_another_container, "other annotations"),
    "no root": (_config(json.dumps({"annotations": ASK})), "no root.path"),
}


@pytest.mark.parametrize(("bundle", "words"), BUNDLES.values(), ids=BUNDLES)
def test_bad_bundle(container: Scratch, bundle: Bundle, words: str) -> None:
    bundle(container)
    without_root = container.hook(ASK, root=None)
    assert_failed(without_root, 17, words, container=container)
    # With crun's `root` the bundle isn't needed.
    assert_granted(container, container.hook(ASK))


def test_a_good_bundle(container: Scratch) -> None:
    container.config(ASK)
    assert_granted(container, container.hook(ASK, root=None))


def test_root_path_relative_to_the_bundle(container: Scratch) -> None:
    container.config(ASK, root={"path": "../rootfs"})
    assert_granted(container, container.hook(ASK, root=None))


def test_crun_gives_a_wrong_bundle(container: Scratch) -> None:
    assert_failed(container.hook(ASK, root=None, bundle="/"), 17, "2025", container=container)
    assert_granted(container, container.hook(ASK, bundle="/"))


@pytest.mark.parametrize("masked", ["/sys/fs/bpf", "/sys/fs", "/sys", "/", "/sys/fs/bpf/"])
def test_masked_paths_cover_the_target(container: Scratch, masked: str) -> None:
    container.config(ASK, linux={"maskedPaths": ["/proc/kcore", masked]})
    result = container.hook(ASK)
    assert_failed(result, 16, "maskedPaths", "io.bpffs.path", container=container)


def test_masked_paths_elsewhere(container: Scratch) -> None:
    container.config(ASK, linux={"maskedPaths": ["/sys/fs/b", "/sys/fs/bpf/x", "/sys/firmware"]})
    assert_granted(container, container.hook(ASK))


TMPFS = {"destination": "/sys/fs/bpf", "type": "tmpfs", "options": ["nosuid", "ro"]}


@pytest.mark.parametrize("destination", ["/sys/fs/bpf", "/sys//fs/bpf/", "sys/fs/bpf"])
def test_the_target_is_remounted_behind_the_hook(container: Scratch, destination: str) -> None:
    container.config(ASK, mounts=[{"type": "proc"}, {**TMPFS, "destination": destination}])
    result = container.hook(ASK)
    assert_failed(result, 16, "read-only tmpfs", "io.bpffs.path", container=container)


@pytest.mark.parametrize(
    "mounts",
    [
        [{**TMPFS, "destination": "/sys/fs"}],
        [{**TMPFS, "options": ["rw"]}],
        [{**TMPFS, "type": "bind"}],
        [{**TMPFS, "options": None}, 7, {}],
        {"destination": "/sys/fs/bpf"},
        None,
    ],
)
def test_mounts_that_stay_as_they_are(container: Scratch, mounts: object) -> None:
    container.config(ASK, mounts=mounts)
    assert_granted(container, container.hook(ASK))


# ---- the annotations -------------------------------------------------------------------

REQUESTS = {
    "unknown key": ({"delegate_cmd": "any"}, 10, 'did you mean "io.bpffs.delegate_cmds"?'),
    "unknown name": ({"delegate_progs": "kprob"}, 11, 'did you mean "kprobe"'),
    "nothing like it": ({"delegate_maps": "zzzz"}, 11, 'no map type is called "zzzz"'),
    "decimal": ({"delegate_cmds": "5"}, 10, "decimal"),
    "over 64 bits": ({"delegate_cmds": "0x10000000000000000"}, 10, "more than the 64 bits"),
    "relative path": ({**ASK, "path": "sys/fs/bpf"}, 10, "isn't an absolute path"),
    "path with ..": ({**ASK, "path": "/sys/../../etc"}, 10, '".."'),
    "the root itself": ({**ASK, "path": "//"}, 10, "root itself"),
    "mode": ({**ASK, "mode": "0888"}, 10, "octal"),
    "no list": ({"mode": "0700"}, 10, "delegates nothing"),
    "another's name": ({"delegate_cmds/web": "any"}, 10, "doesn't tell the container's name"),
    "two lines": ({"delegate_cmds": "x\nroot: y"}, 11, '"root"'),
}


@pytest.mark.parametrize(("request_", "code", "words"), REQUESTS.values(), ids=REQUESTS)
def test_bad_request(container: Scratch, request_: dict[str, str], code: int, words: str) -> None:
    asked = {k if k.startswith("io.") else f"io.bpffs.{k}": text for k, text in request_.items()}
    assert_failed(container.hook(asked), code, words, container=container)


def test_every_problem_at_once(container: Scratch) -> None:
    asked = {"io.bpffs.delegate_cmds": "5,no-name", "io.bpffs.pat": "/x", "io.bpffs.mode": "x"}
    words = ('"5"', '"no-name"', '"io.bpffs.pat"', '"io.bpffs.mode"')
    assert_failed(container.hook(asked), 10, *words, container=container)


def test_a_name_of_a_newer_kernel(container: Scratch) -> None:
    asked = {"io.bpffs.delegate_cmds": "map_create:prog_assoc_struct_ops"}
    header = ("--header", str(header_of_6_9(container.outside)))
    result = run_hook(container.state(asked), *header, prefix=NO_BTF)
    assert_failed(result, 11, "since 7.0", "on_unknown", container=container)
    dropping = asked | {"io.bpffs.on_unknown": "drop"}
    result = run_hook(container.state(dropping), *header, prefix=NO_BTF)
    assert (result.returncode, result.stderr) == (0, "")
    (mount,) = container.mounts()
    assert mount.endswith(",delegate_cmds=map_create")


def test_no_user_namespace() -> None:
    with Scratch(user=False) as container:
        words = ("--userns=auto", "hostUsers: false", "userns-remap")
        assert_failed(container.hook(ASK), 14, *words, container=container)


def test_no_mount_namespace() -> None:
    with Scratch(mount=False) as container:
        assert_failed(container.hook(ASK), 14, "no mount namespace", container=container)


NOTHING: dict[str, object] = {
    "no annotations": {"id": "x"},
    "annotations null": {"id": "x", "annotations": None},
    "others": {"id": "x", "annotations": {"io.bpff": "y", "org.io.bpffs.path": "z"}},
    "others, and no pid": {"annotations": {"a": "b"}},
}


@pytest.mark.parametrize("state", NOTHING.values(), ids=NOTHING)
def test_nothing_is_asked(state: dict[str, object]) -> None:
    with DevLog() as log:
        result = run_hook(state, prefix=log.prefix)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert log.lines() == []


def test_nothing_is_asked_and_little_is_imported() -> None:
    ours, others = loaded(stdin={"id": "x"})
    assert "hook.main" in ours
    assert "mount.host_half" not in ours
    assert not others & {"_ctypes", "ctypes", "_socket", "json"}


@pytest.mark.parametrize("text", ["", " ", ",:,"])
def test_an_empty_list_asks_for_nothing(container: Scratch, text: str) -> None:
    result = container.hook({"io.bpffs.delegate_cmds": text})
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    container.assert_untouched()


# Runs what comes next as a set-user-id program would that leaves its caller's real id.
CALLED_BY = "import os, sys; os.setresuid(61996, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


def test_what_root_s_engine_does_for_a_caller_is_the_caller_s() -> None:
    for prefix, user in (((), 0), ((sys.executable, "-ISc", CALLED_BY), 61996)):
        with Scratch() as other:
            state = other.state(ASK)
            assert_granted(other, run_hook(state, prefix=prefix))
        assert audited()[-1]["requester"]["user"] == user
