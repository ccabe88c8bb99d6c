"""Tries the whole way: makes a scratch user namespace, a bpffs, a token, a map and a program."""

from collections.abc import Iterator

from ..kernel import bpf
from ..mount.scratch import ATTACH_0, HASH, SOCKET_FILTER, Scratch, masks
from .finding import Finding, ok, problem


def selftest() -> Iterator[Finding]:
    """Try it; yields one finding, about what failed first or about success.  Takes root."""
    try:
        bpf.arch()
    except OSError as error:
        yield problem("selftest", f"{error.strerror}: nothing can be tried on this machine")
        return
    with Scratch(use=_use) as scratch:
        step = scratch.failed or scratch.delegate(masks()) or scratch.use()
    if step:
        yield problem("selftest", f"a scratch container can't use BPF: {step}")
    else:
        yield ok(
            "selftest",
            "a scratch user namespace got a bpffs, and with a token from it made a map and a "
            "program",
        )


def _use(token: int) -> str:
    step = "BPF_MAP_CREATE"
    try:
        bpf.map_create(HASH, token)
        step = "BPF_PROG_LOAD"
        bpf.prog_load(SOCKET_FILTER, ATTACH_0, token)
    except OSError as error:
        return f"{step} with the token: {error.strerror}"
    return ""
