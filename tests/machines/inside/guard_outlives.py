"""What the guard outlives: other lists, upgrades, whoever is killed, links that go; and its end.

The cases are in the order in which they run, after those of `guard`, which leave the guard on; the
last one turns it off.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from oci_bpf_hook.bpf.names import KINDS, MAPS, PROGS
from oci_bpf_hook.errors import HookError
from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.lsm import lists, load
from oci_bpf_hook.guard.lsm.libbpf import Libbpf, Object
from oci_bpf_hook.kernel import bpf as probe_bpf
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.kernel import syscalls
from oci_bpf_hook.paths import GUARD
from tests.support.scratch import Scratch

from . import bpf
from .cases import ENDS, TOKENS, Context, on
from .container import as_root
from .guarded import (
    ASKED,
    HASH,
    LOADED,
    NOT_LISTED,
    REFUSED,
    SCHED_CLS,
    SOCKET_FILTER,
    TRACEPOINT,
    at_last,
    built_in_policy,
    confined,
    forked,
    kfuncs,
    last,
    loads,
    makes,
    marked,
    raises,
    trusted,
)

# r0 = *(u32 *)(r1 + 0); r0 = 0; exit: the packet's length.
READS_ITS_CONTEXT: Final = bytes.fromhex("6110000000000000b7000000000000009500000000000000")


@contextmanager
def other_lists(**changes: object) -> Iterator[None]:
    """As another version has them, which only adds to what is refused."""
    ours, other = lists.FILE, Path("/tmp/other.json")
    other.write_text(json.dumps({**lists.data(), **changes}))
    lists.FILE = other
    try:
        yield
    finally:
        lists.FILE = ours


@on(*ENDS)
def case_other_lists(context: Context) -> str:
    """Another version has a mode of loads on them that most programs have, and a map less."""
    del context
    # Nothing is done where the cases of `guard` have run before.
    load.turn_on()
    with marked() as container:
        assert loads(container, READS_ITS_CONTEXT, SOCKET_FILTER) == LOADED
        ours = lists.data()
        maps = {**ours["maps"], "hash": {"allowed": False}}
        with other_lists(loads={**ours["loads"], "BPF_MEM": 3}, maps=maps):
            assert load.turn_on().changed
            assert loads(container, READS_ITS_CONTEXT, SOCKET_FILTER)[0] == 1
            found = last(container)
            assert found.reason == "load"
            assert makes(container, HASH) == 1
            assert (last(container).reason, last(container).what) == ("map", "hash")
            assert loads(container, bpf.RETURN_0, SOCKET_FILTER) == LOADED
        assert load.turn_on().changed
        assert at_last(lambda: loads(container, READS_ITS_CONTEXT, SOCKET_FILTER) == LOADED)
        assert at_last(lambda: makes(container, HASH) == 0)
        return str(found)


@on(*ENDS)
def case_an_upgrade(context: Context) -> None:
    """Tokens and bpffs of before are held after it; others' tokens aren't."""
    del context

    def renew() -> None:
        with other_lists(about="another"):
            assert load.turn_on().changed
        assert load.turn_on().changed

    with trusted() as free, marked() as container:
        assert _with_an_old_token(container, renew) == 1
        assert loads(container, bpf.RETURN_0, TRACEPOINT) == REFUSED
        assert _with_an_old_token(free, renew) == 0
    assert not os.path.exists(f"{GUARD}-next")


def _with_an_old_token(container: Scratch, meanwhile: Callable[[], None]) -> int:
    """The errno of loading a tracepoint program through a token that was there before."""
    reader, writer = os.pipe()

    made, told = os.pipe()

    def load_once_told() -> int:
        token = bpf.token()
        os.write(told, b".")
        os.read(reader, 1)
        return bpf.prog_load(bpf.RETURN_0, TRACEPOINT, token=token).errno

    pid = os.fork()
    if pid == 0:
        try:
            os.read(made, 1)
            meanwhile()
        finally:
            os.write(writer, b".")
            os._exit(0)
    found = as_root(container, load_once_told)
    os.waitpid(pid, 0)
    for fd in (reader, writer, made, told):
        os.close(fd)
    return found


@contextmanager
def nobody_waits() -> Iterator[None]:
    """For programs that this process holds itself, whose end nobody could wait for."""
    before, load._PATIENCE = load._PATIENCE, 0
    try:
        yield
    finally:
        load._PATIENCE = before


@on("experimental")
def case_killed_at_every_step(context: Context) -> int:
    """The old guard or the new one is in force, and holds who was held."""
    del context
    enums = kernel.enums(KINDS)
    steps = 0
    with marked() as container, other_lists(about="yet another"):
        found = lists.lists(lists.types(), enums[PROGS.option], enums[MAPS.option])
        before = load.loaded()
        assert before != found.digest
        with nobody_waits(), Object(Libbpf(), str(lists.OBJECT)) as object_:
            load._make(object_, found)
            # Attached once: what is attached and not pinned goes with whoever is killed.
            links = {name: object_.attach(name) for name in guard.LINKS}
            while _dies_at(steps, object_, links):
                steps += 1
                # From when the names are exchanged it is the new one.
                assert load.loaded() in (before, found.digest), steps
                assert loads(container, bpf.RETURN_0, TRACEPOINT) == REFUSED, steps
                load._sweep()
                if load.loaded() == found.digest:
                    # And again, from the new one to itself.
                    before = found.digest
        assert load.loaded() == found.digest
        assert loads(container, bpf.RETURN_0, TRACEPOINT) == REFUSED
    # mkdir, a pin each, the exchange, and what is swept away of the old one.
    assert steps >= 2 * (len(guard.LINKS) + len(load.MAPS)) + 3
    assert load.turn_on().changed
    return steps


def _dies_at(number: int, object_: Object, links: Mapping[str, int]) -> bool:
    """Pin the guard in a child that is killed before the call of that number; whether it was."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            left = [number]
            for owner, name in (
                *((os, name) for name in ("mkdir", "rename", "unlink", "rmdir")),
                *((Object, "pin"), (load, "exchange")),
            ):
                _count(owner, name, left)
            Object.attach = lambda self, name: links[name]  # type: ignore[method-assign]
            load._try(object_)
            load._put_in_place()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return os.WIFSIGNALED(status)


def _count(owner: Any, name: str, left: list[int]) -> None:
    plain = getattr(owner, name)

    def counted(*arguments: Any, **words: Any) -> Any:
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return plain(*arguments, **words)

    setattr(owner, name, counted)


@on("trixie")
def case_a_map_of_another_form(context: Context) -> str:
    """What is told of refusals begins anew; who is held is never let go of for it."""
    del context

    def put(name: str) -> None:
        """Have an array in the place of that map."""
        os.unlink(f"{GUARD}/{name}")
        fd = probe_bpf.map_create(probe_bpf.BPF_MAP_TYPE_ARRAY, None)
        with Object(Libbpf(), str(lists.OBJECT)) as object_:
            object_.pin(fd, f"{GUARD}/{name}")
        os.close(fd)

    with other_lists(about="of another form"):
        put(load.SPACES)
        assert load.turn_on().changed
        before = load.loaded()
        put(guard.TOKENS)
    try:
        load.turn_on()
    except HookError as error:
        assert load.loaded() == before
        load.turn_off()
        assert load.turn_on().changed
        return str(error)
    raise AssertionError


@on(*ENDS)
def case_gone_or_replaced(context: Context) -> list[str]:
    """A link less, or another's in its place: there is no confined grant, until it is on again."""
    del context
    said = []
    link = f"{GUARD}/prog_load"
    for replace in (False, True):
        os.unlink(link)
        if replace:
            fd = syscalls.bpf_obj_get(f"{GUARD}/token_free".encode())
            with Object(Libbpf(), str(lists.OBJECT)) as object_:
                object_.pin(fd, link)
            os.close(fd)
        said.append(raises(guard.in_force))
        with built_in_policy(), Scratch(network=True) as container:
            assert container.hook(ASKED).returncode == 12
        assert load.turn_on().changed
        guard.in_force().__exit__(None, None, None)
    assert said[1] == "the guard's prog_load was replaced"
    return said


@on(*TOKENS)
def case_it_is_turned_off(context: Context) -> Any:
    """Not while it holds somebody, unless that is said."""
    del context
    with confined() as container:
        said = forked("guard", "off", code=16)
        guard.in_force().__exit__(None, None, None)
        assert forked("guard", "off", "--force")["released"], said
        assert at_last(lambda: loads(container, kfuncs(*NOT_LISTED), SCHED_CLS) == LOADED)
    assert raises(guard.in_force) == "the guard isn't loaded"
    assert forked("guard", "off")["changed"] is False
    with built_in_policy(), Scratch(network=True) as container:
        assert container.hook(ASKED).returncode == 12
        # What loads no program needs no guard.
        done = container.hook(
            {
                **ASKED,
                "io.bpffs.delegate_cmds": "map_create",
                "io.bpffs.delegate_progs": "",
                "io.bpffs.delegate_attachs": "",
            }
        )
        assert done.returncode == 0, done.stderr
    return said
