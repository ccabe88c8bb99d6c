"""probes.py: the kernel's own answers, and a real process's seccomp filter."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from oci_bpf_hook import probes
from oci_bpf_hook.seccomp import answer
from tests.support.situation import with_filter


def refused(number: int, call: Callable[[], object]) -> str:
    with pytest.raises(OSError, match=r"^\[Errno") as caught:
        call()
    assert caught.value.errno == number
    return str(caught.value)


def test_the_kernel_looks_at_the_fd_first() -> None:
    """What tells seccomp and the kernel apart: the kernel says EBADF whoever asks."""
    assert "bpf: " in refused(errno.EBADF, lambda: probes.token_create(-1))


def test_no_token_in_the_initial_namespace() -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        refused(errno.EINVAL, lambda: probes.token_create(fd))
    finally:
        os.close(fd)


def test_a_token_that_is_none() -> None:
    refused(errno.EBADF, lambda: probes.map_create(1, -1))
    refused(errno.EBADF, lambda: probes.prog_load(1, 0, -1))


def test_filters() -> None:
    arch = probes.arch()
    with subprocess.Popen(
        with_filter("sh", "-c", "echo; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        filters = probes.seccomp_filters(process.pid)
        # It goes on.
        process.stdin.write(b"x\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"x\n"
        # And has no tracer.
        assert probes.seccomp_filters(process.pid) == filters
    assert len(filters) == 1
    assert answer(filters, arch.bpf, arch.audit, (36,)).errno == errno.EPERM
    assert answer(filters, arch.bpf + 1, arch.audit, ()).allows


def test_a_process_without_a_filter() -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE) as process:
        # EINVAL: the process isn't in filter mode.
        refused(errno.EINVAL, lambda: probes.seccomp_filters(process.pid))


def test_a_signal_that_comes_meanwhile_isn_t_lost() -> None:
    with subprocess.Popen(
        with_filter("sh", "-c", "trap 'echo got' USR1; echo; while :; do read line; done"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        # It stands still, and so the signal is there before the one that stops it for us.
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGCONT)
        assert len(probes.seccomp_filters(process.pid)) == 1
        assert process.stdout.readline() == b"got\n"
        process.kill()


def test_no_process() -> None:
    refused(errno.ESRCH, lambda: probes.seccomp_filters((1 << 31) - 1))
