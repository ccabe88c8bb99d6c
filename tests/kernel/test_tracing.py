"""ptrace(2): the seccomp filters of a real process."""

import errno
import os
import signal
import subprocess

from oci_bpf_hook.kernel import bpf, tracing
from oci_bpf_hook.kernel.seccomp import answer
from tests.support.refused import refused
from tests.support.situation import with_filter


def test_filters() -> None:
    arch = bpf.arch()
    with subprocess.Popen(
        with_filter("sh", "-c", "echo; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        filters = tracing.seccomp_filters(process.pid)
        # It goes on.
        process.stdin.write(b"x\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"x\n"
        # And has no tracer.
        assert tracing.seccomp_filters(process.pid) == filters
    assert len(filters) == 1
    assert answer(filters, arch.bpf, arch.audit, (36,)).errno == errno.EPERM
    assert answer(filters, arch.bpf + 1, arch.audit, ()).allows


def test_a_process_without_a_filter() -> None:
    with subprocess.Popen("cat", stdin=subprocess.PIPE) as process:
        # EINVAL: the process isn't in filter mode.
        refused(errno.EINVAL, lambda: tracing.seccomp_filters(process.pid))


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
        assert len(tracing.seccomp_filters(process.pid)) == 1
        assert process.stdout.readline() == b"got\n"
        process.kill()


def test_no_process() -> None:
    refused(errno.ESRCH, lambda: tracing.seccomp_filters((1 << 31) - 1))
