"""Kernels, and hosts, that answer otherwise than the hook needs.

strace has the kernel answer so; the hook is the same.
"""

from collections.abc import Iterator

import pytest

from tests.support.scratch import NO_BTF, Scratch, assert_failed, install, run_hook
from tests.support.tracer import Call, inject, trace

# With directories that are to be taken back.
ASK = {
    "io.bpffs.delegate_cmds": "map_create:prog_load",
    "io.bpffs.delegate_maps": "hash",
    "io.bpffs.delegate_progs": "xdp",
    "io.bpffs.delegate_attachs": "xdp",
    "io.bpffs.path": "/opt/new/deep",
}
# fsconfig's calls, in order.
SOURCE, MODE, CMDS, MAPS, PROGS, ATTACHS, CREATE = range(1, 8)
KERNEL = "takes Linux 6.9"


@pytest.fixture
def container() -> Iterator[Scratch]:
    with Scratch() as scratch:
        yield scratch


# The first openat2 and statx are for the root filesystem; a kernel too old fails there.
ANSWERS = {
    "fsopen": {"ENOSYS": 13, "EINVAL": 13, "ENODEV": 13, "EPERM": 16, "ENOMEM": 16},
    "fsconfig": {"ENOSYS": 13, "EINVAL": 13, "EPERM": 15, "ENOMEM": 16},
    "fsmount": {"ENOSYS": 13, "EINVAL": 13, "EPERM": 16, "ENOMEM": 16},
    "move_mount": {"ENOSYS": 13, "EINVAL": 16, "EPERM": 16, "ENOSPC": 16},
    "openat2": {"ENOSYS": 13, "EINVAL": 17, "EPERM": 17, "ENOMEM": 17},
    "openat2:when=3+": {"ENOSYS": 13, "EINVAL": 16, "EPERM": 16, "EAGAIN": 16},
    "setns": {"ENOSYS": 13, "EINVAL": 16, "EPERM": 15, "ENOMEM": 16},
    "setns:when=2": {"ENOSYS": 13, "EINVAL": 16, "EPERM": 15, "ENOMEM": 16},
    "statx": {"ENOSYS": 13, "EINVAL": 17, "EPERM": 17},
    "statx:when=3": {"ENOSYS": 13, "EPERM": 16},
    "prctl": {"ENOSYS": 13, "EINVAL": 16, "EPERM": 16},
    "setgroups": {"ENOSYS": 13, "EPERM": 15},
    "mkdirat:when=2": {"EDQUOT": 16, "ENOSPC": 16, "EROFS": 16},
    "clone": {"EAGAIN": 16, "ENOMEM": 16},
    "socketpair": {"EMFILE": 16, "ENFILE": 16},
}
CASES = [
    pytest.param(call, error, code, id=f"{call}-{error}")
    for call, answers in ANSWERS.items()
    for error, code in answers.items()
]


@pytest.mark.parametrize(("call", "error", "code"), CASES)
def test_an_error(container: Scratch, call: str, error: str, code: int) -> None:
    name, _, when = call.partition(":")
    rule = f"{name}:error={error}{':' + when if when else ''}"
    result = run_hook(container.state(ASK), prefix=inject(rule))
    words = (KERNEL,) if code == 13 else ()
    assert_failed(result, code, *words, container=container)


@pytest.mark.parametrize("option", [CMDS, MAPS, PROGS, ATTACHS])
def test_a_kernel_that_ignores_an_option(container: Scratch, option: int) -> None:
    """Before 6.9 bpffs ignored what it didn't know, and mounted happily."""
    rule = f"fsconfig:retval=0:when={option}"
    name = ("cmds", "maps", "progs", "attachs")[option - CMDS]
    result = run_hook(container.state(ASK), prefix=inject(rule))
    assert_failed(result, 19, f'delegate_{name} is ""', "before 6.9", container=container)


def test_a_kernel_that_ignores_them_all(container: Scratch) -> None:
    rule = f"fsconfig:retval=0:when={CMDS}..{ATTACHS}"
    result = run_hook(container.state(ASK), prefix=inject(rule))
    words = [f"delegate_{name}" for name in ("cmds", "maps", "progs", "attachs")]
    assert_failed(result, 19, *words, container=container)


def test_a_kernel_that_ignores_the_mode(container: Scratch) -> None:
    asked = {**ASK, "io.bpffs.mode": "1700"}
    rule = f"fsconfig:retval=0:when={MODE}"
    result = run_hook(container.state(asked), prefix=inject(rule))
    assert_failed(result, 19, "1777", "1700", container=container)


def test_a_superblock_that_was_not_made(container: Scratch) -> None:
    rule = f"fsconfig:retval=0:when={CREATE}"
    result = run_hook(container.state(ASK), prefix=inject(rule))
    assert_failed(result, 13, container=container)


def test_a_mount_that_was_not_attached(container: Scratch) -> None:
    result = run_hook(container.state(ASK), prefix=inject("move_mount:retval=0"))
    assert_failed(result, 19, "among the container's mounts", container=container)


@pytest.mark.parametrize("flag", ["suid", "dev", "exec", "ro"])
def test_a_mount_with_other_flags(container: Scratch, flag: str) -> None:
    """As soon as it is attached it is the container's to change; what is read back isn't ours."""
    changed = False

    def change(call: Call) -> None:
        nonlocal changed
        if call.pid == call.child and not changed and container.mounts():
            target = str(container.root / "opt/new/deep")
            done = container.enter("mount", "-o", f"remount,bind,{flag}", target)
            changed = done.returncode == 0

    result = trace(container.state(ASK), change).result
    assert changed
    assert_failed(result, 19, "its flags are", container=container)


def test_a_mount_with_another_mode(container: Scratch) -> None:
    """`fchmod` that does nothing leaves the sticky bit."""
    asked = {**ASK, "io.bpffs.mode": "0700"}
    result = run_hook(container.state(asked), prefix=inject("fchmod:retval=0"))
    assert_failed(result, 19, "1700", "0700", container=container)


def test_no_close_range(container: Scratch) -> None:
    """An old kernel, or a libc without it: every fd is closed by itself."""
    prefix = inject("close_range:error=ENOSYS")
    # What is traced is close_range alone, so that 65,000 closes are no 65,000 stops.
    result = run_hook(container.state(ASK), prefix=[*prefix[:1], "--seccomp-bpf", *prefix[1:]])
    assert result.returncode == 0, result.stderr


def test_no_btf(container: Scratch) -> None:
    """The shipped table has the names, then."""
    result = run_hook(container.state(ASK), prefix=NO_BTF)
    assert (result.returncode, result.stderr) == (0, "")
    assert "delegate_progs=xdp" in container.mounts()[0]


# ---- a host that gives its engine less than root has ------------------------------------

CAPABILITIES = {
    "sys_admin": "CAP_SYS_ADMIN",
    "sys_ptrace": "CAP_SYS_PTRACE",
    "sys_chroot": "CAP_SYS_CHROOT",
    "setgid": "CAP_SETGID",
}


@pytest.mark.parametrize(("capability", "words"), CAPABILITIES.items(), ids=CAPABILITIES)
def test_without_a_capability(container: Scratch, capability: str, words: str) -> None:
    prefix = ("setpriv", f"--bounding-set=-{capability}", "--")
    result = run_hook(container.state(ASK), prefix=prefix)
    assert_failed(result, 15, words, container=container)


@pytest.mark.parametrize("capability", ["dac_override", "fowner", "kill", "setuid", "bpf"])
def test_capabilities_it_does_not_need(container: Scratch, capability: str) -> None:
    prefix = ("setpriv", f"--bounding-set=-{capability}", "--")
    assert run_hook(container.state(ASK), prefix=prefix).returncode == 0
    assert len(container.mounts()) == 1


def test_an_unprivileged_user(container: Scratch) -> None:
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    # In a copy that this user can read, wherever the checkout is.
    launcher = install(container.outside / "installed")
    result = run_hook(container.state(ASK), prefix=prefix, launcher=launcher)
    assert_failed(result, 15, container=container)


ROOTLESS = {"the engine's user namespace": (), "its own": ("-U", "-r")}


@pytest.mark.parametrize("own", ROOTLESS.values(), ids=ROOTLESS)
def test_a_rootless_engine(own: tuple[str, ...]) -> None:
    """The hook and the container in a user namespace; podman's doesn't give it another."""
    with Scratch() as engine:
        launcher = install(engine.outside / "installed")
        with engine.running("unshare", "-m", *own) as process:
            state = engine.state(ASK, pid=process.pid)
            result = run_hook(state, prefix=engine.entering(), launcher=launcher)
        assert_failed(result, 15, "the broker", "systemctl enable", container=engine)
