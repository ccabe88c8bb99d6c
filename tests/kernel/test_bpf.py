"""bpf(2): the kernel's own answers."""

import errno
import os

from oci_bpf_hook.kernel import bpf
from tests.support.refused import refused


def test_the_kernel_looks_at_the_fd_first() -> None:
    """What tells seccomp and the kernel apart: the kernel says EBADF whoever asks."""
    assert "bpf: " in refused(errno.EBADF, lambda: bpf.token_create(-1))


def test_no_token_in_the_initial_namespace() -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        refused(errno.EINVAL, lambda: bpf.token_create(fd))
    finally:
        os.close(fd)


def test_a_token_that_is_none() -> None:
    refused(errno.EBADF, lambda: bpf.map_create(1, -1))
    refused(errno.EBADF, lambda: bpf.prog_load(1, 0, -1))
