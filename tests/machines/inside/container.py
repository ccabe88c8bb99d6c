"""A container in the machine: the hook runs for it, and functions run in it as its root."""

import os
import pickle
import traceback
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from oci_bpf_hook.kernel import process, syscalls
from tests.support.scratch import Scratch

T = TypeVar("T")
_NAMESPACES: Final = ("user", "mnt", "net")


def as_root(
    container: Scratch, function: Callable[[], T], *, capabilities: Collection[int] | None = None
) -> T:
    """What `function` returns in the container, as its root; what it raises is raised here.

    It runs in a process of its own, whose root directory is the container's, and with these
    capabilities alone (by their numbers; None is all).  What it returns has to be picklable.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            with open(writer, "wb") as out:
                out.write(_outcome(container, function, capabilities))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        data = answer.read()
    os.waitpid(pid, 0)
    assert data, "the process in the container has died"
    # Our own child's, of this very program.
    value, error = pickle.loads(data)
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]


def _outcome(
    container: Scratch, function: Callable[[], object], capabilities: Collection[int] | None
) -> bytes:
    answer: tuple[Any, Exception | None]
    try:
        _enter(container, capabilities)
        answer = (function(), None)
    except Exception as error:  # noqa: BLE001  It is raised again, in the parent.
        error.add_note(traceback.format_exc())
        answer = (None, error)
    return pickle.dumps(answer)


def _enter(container: Scratch, capabilities: Collection[int] | None) -> None:
    pid = container.init.pid
    fds = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in _NAMESPACES]
    for fd in fds:
        syscalls.setns(fd, 0)
        os.close(fd)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.chroot(container.root)
    os.chdir("/")
    if capabilities is not None:
        mask = sum(1 << number for number in capabilities)
        process.capset(mask, mask, 0)
