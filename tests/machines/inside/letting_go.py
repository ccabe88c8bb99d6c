"""What the guard mustn't let go of, or let anybody take from others: tried on kernels that have it.

The cases are in the order in which they run; the last one leaves no guard.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from oci_bpf_hook.bpf.names import KINDS, MAPS, PROGS
from oci_bpf_hook.errors import HookError
from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.lsm import lists, load
from oci_bpf_hook.guard.lsm.libbpf import Libbpf, Object
from oci_bpf_hook.kernel import bpf, libc, process, syscalls
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.paths import GUARD
from tests.support.scratch import Scratch

from .cases import ENDS, Context, on
from .container import as_root
from .guarded import forked, marked, mount, raises

NEXT: Final = f"{GUARD}-next"


@on(*ENDS)
def case_nobody_says_which_lsms(context: Context) -> str:
    """Without securityfs it isn't tried, since a mark may be written into another LSM's memory."""
    del context
    kept = Path(load.LSMS)
    process.mount_tmpfs(bytes(kept.parent))
    try:
        said = forked("guard", "on", code=13)
        assert "mount -t securityfs" in said
        assert not os.path.exists(GUARD)
    finally:
        libc.check(process._libc.umount2(bytes(kept.parent), 0), "umount2")
    assert forked("guard", "on")["changed"] is True
    return str(said)


@on(*ENDS)
def case_two_of_them(context: Context) -> None:
    """What somebody who was killed has left goes, though the guard is the right one already."""
    del context
    enums = kernel.enums(KINDS)
    found = lists.lists(lists.types(), enums[PROGS.option], enums[MAPS.option])
    with Object(Libbpf(), str(lists.OBJECT)) as object_:
        load._make(object_, found)
        load._try(object_)
    assert os.path.isdir(NEXT)
    assert forked("guard", "on")["changed"] is False
    assert not os.path.exists(NEXT)


def _holds_a_token(then: Callable[[], None]) -> int:
    """Have a process keep a token and nothing else; its pid."""
    bpffs = os.open("/sys/fs/bpf", os.O_RDONLY | os.O_DIRECTORY)
    token = bpf.token_create(bpffs)
    os.close(bpffs)
    pid = os.fork()
    if pid == 0:
        # Above all not the pipe by which our parent is waited for.
        os.closerange(0, token)
        os.closerange(token + 1, 1 << 10)
        while True:
            signal.pause()
    then()
    return pid


def _umount() -> None:
    libc.check(process._libc.umount2(b"/sys/fs/bpf", syscalls.MNT_DETACH), "umount2")


@on(*ENDS)
def case_a_token_without_a_mount(context: Context) -> str:
    """Who has hidden the bpffs and kept a token has to be waited for, too."""
    del context
    with marked() as container:
        pid = as_root(container, lambda: _holds_a_token(_umount))
        try:
            said = forked("guard", "off", code=16)
            assert "the guard confines 1 tokens" in said, said
            assert forked("guard", "off", "--dry-run", code=16) == said
            guard.in_force().__exit__(None, None, None)
        finally:
            os.kill(pid, signal.SIGKILL)
    return str(said)


@on(*ENDS)
def case_a_directory_of_the_bpffs(context: Context) -> str:
    """The mark is on its root, and so of what is bound from below that nothing tells."""
    del context

    def hide() -> None:
        os.mkdir("/sys/fs/bpf/one")
        flags = ctypes.c_ulong(0x1000)
        libc.check(process._libc.mount(b"/sys/fs/bpf/one", b"/opt", None, flags, None), "mount")
        _umount()

    with marked() as container:
        as_root(container, hide)
        pid = container.init.pid
        (one,) = (row for row in forked("inspect") if row["container"]["pid"] == pid)
        assert one["confined"] is None
        said = forked("guard", "off", code=16)
        assert f"pid {pid} may be confined by the guard" in said, said
        guard.in_force().__exit__(None, None, None)
    return str(said)


@on(*ENDS)
def case_a_grant_that_was_under_way(context: Context) -> list[str]:
    """It is none if the guard went, or went and came back, since it was looked at."""
    del context
    said = []
    with Scratch(network=True) as container, guard.in_force() as before:
        assert forked("guard", "off")["changed"] is True
        for _ in range(2):
            try:
                mount(container, before)
            except HookError as error:
                said.append(str(error))
            assert container.mounts() == []
            load.turn_on()
    assert "the guard isn't loaded" in said[0], said
    assert "another one turned on" in said[1], said
    # Nothing is under way any more, and nobody is held.
    assert forked("guard", "off")["changed"] is True
    assert raises(guard.in_force) == "the guard isn't loaded"
    return said
