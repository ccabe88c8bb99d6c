"""The guard on kernels that can have it: what it refuses, what it leaves alone, what it outlives.

The kernel functions and helpers that are tried do no harm: they lock RCU, or switch preemption of
this machine off and on.  The cases are in the order in which they run: the guard is on from the
second on, until the last ones.
"""

import json
import os
import resource
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
from oci_bpf_hook.kernel import process, syscalls
from oci_bpf_hook.paths import GUARD
from tests.support.policy import AUDIT
from tests.support.scratch import Scratch

from . import bpf
from .cases import ENDS, TOKENS, Context, on
from .container import as_root
from .guarded import (
    ASKED,
    HASH,
    LOADED,
    REFUSED,
    SCHED_CLS,
    SOCKET_FILTER,
    TRACEPOINT,
    at_last,
    built_in_policy,
    call,
    command,
    confined,
    dead,
    forked,
    function,
    kfuncs,
    last,
    loads,
    makes,
    marked,
    mount,
    raises,
    trusted,
    variable,
)

LISTED: Final = ("bpf_rcu_read_lock", "bpf_rcu_read_unlock")
NOT_LISTED: Final = ("bpf_preempt_disable", "bpf_preempt_enable")
GET_CURRENT_PID_TGID, TRACE_PRINTK = 14, 6
# r0 = 0; lock acquire load into r1 from r10 - 8; exit
ACQUIRE: Final = bytes.fromhex("7a0af8ff00000000dba1f8ff00010000b7000000000000009500000000000000")
# r0 = *(u32 *)(r1 + 0); r0 = 0; exit: the packet's length.
READS_ITS_CONTEXT: Final = bytes.fromhex("6110000000000000b7000000000000009500000000000000")
TOKENS_OF_USER: Final = 1024


@on("bookworm")
def case_none_without_tokens(context: Context) -> Any:
    """The command says what is missing, and leaves nothing."""
    del context
    said = command("guard", "on", code=13)
    assert "Linux 6.9" in said, said
    assert not os.path.exists(GUARD)
    return said


@on(*TOKENS)
def case_no_confined_grant_without_it(context: Context) -> str:
    """The built-in policy gives no programs, and says what to do."""
    del context
    assert raises(guard.in_force) == "the guard isn't loaded"
    assert forked("guard", "status", code=20)["in_force"] is False
    with built_in_policy(), Scratch(network=True) as container:
        done = container.hook(ASKED)
        assert done.returncode == 12, done.stderr
        assert "oci-bpf-hook guard on" in done.stderr
        assert "confined: false" in done.stderr
        assert container.mounts() == []
        return done.stderr


@on(*TOKENS)
def case_it_is_turned_on_once(context: Context) -> Any:
    """And a second time nothing is done."""
    del context
    assert command("guard", "on")["changed"] is True
    assert forked("guard", "on")["changed"] is False
    status = forked("guard", "status")
    assert (status["in_force"], status["current"]) == (True, True)
    return status


@on(*TOKENS)
def case_a_program_that_calls_nothing(context: Context) -> None:
    """It loads as before, with CAP_BPF alone or with CAP_NET_ADMIN, by the hook's own grant."""
    del context
    with confined() as container:
        assert (
            loads(container, bpf.RETURN_0, SOCKET_FILTER, capabilities=[process.CAP_BPF]) == LOADED
        )
        assert loads(container, bpf.RETURN_0, SCHED_CLS) == LOADED
        assert makes(container, HASH) == 0


@on(*TOKENS)
def case_kernel_functions(context: Context) -> str:
    """Those on the list may be called; another is refused, and named."""
    del context
    with trusted() as container:
        assert loads(container, kfuncs(*LISTED), SCHED_CLS) == LOADED
        assert loads(container, kfuncs(*NOT_LISTED), SCHED_CLS) == LOADED
    with confined() as container:
        assert loads(container, kfuncs(*LISTED), SCHED_CLS) == LOADED
        assert loads(container, function(LISTED[0]), SCHED_CLS) == LOADED
        assert loads(container, kfuncs(*NOT_LISTED), SCHED_CLS, "asks") == REFUSED
        found = last(container)
        assert (found.reason, found.what, found.program) == ("kfunc", NOT_LISTED[0], "asks")
        assert (found.type, found.instruction, found.uid) == ("sched_cls", 0, 100000)
        assert loads(container, dead(call(1, source=2, offset=1)), SCHED_CLS) == REFUSED
        assert last(container).reason == "module"
        return str(found)


@on(*TOKENS)
def case_addresses_of_the_kernel(context: Context) -> str:
    """A variable's is refused, and so is that of a function that isn't on the list."""
    del context
    with trusted() as container:
        assert loads(container, variable("bpf_prog_active"), SCHED_CLS) == LOADED
    with confined() as container:
        assert loads(container, variable("bpf_prog_active"), SCHED_CLS) == REFUSED
        found = last(container)
        assert (found.reason, found.what) == ("variable", "bpf_prog_active")
        assert loads(container, function(NOT_LISTED[0]), SCHED_CLS) == REFUSED
        return str(found)


@on(*TOKENS)
def case_helpers(context: Context) -> str:
    """A closed one is refused, dead code included; what no kernel has is the verifier's matter."""
    del context
    asks = call(GET_CURRENT_PID_TGID) + bpf.RETURN_0
    with trusted() as container:
        assert loads(container, asks, SCHED_CLS) == LOADED
    with confined() as container:
        assert loads(container, asks, SCHED_CLS) == REFUSED
        found = last(container)
        assert (found.reason, found.what) == ("helper", "get_current_pid_tgid")
        assert loads(container, dead(call(GET_CURRENT_PID_TGID)), SCHED_CLS) == REFUSED
        # libbpf puts such a number where a relocation of dead code couldn't be resolved.
        assert loads(container, dead(call(195896080)), SCHED_CLS) == LOADED
        return str(found)


@on(*TOKENS)
def case_perfmon_buys_nothing(context: Context) -> str:
    """With every capability its types don't load, and its helpers are there as dead code alone."""
    del context
    with trusted() as container:
        assert loads(container, bpf.RETURN_0, TRACEPOINT) == LOADED
    with marked() as container:
        assert loads(container, bpf.RETURN_0, TRACEPOINT, "traces") == REFUSED
        found = last(container)
        assert (found.reason, found.what) == ("capability", "CAP_PERFMON")
        assert (found.type, found.program) == ("tracepoint", "traces")
        assert loads(container, dead(call(TRACE_PRINTK)), SCHED_CLS, "prints") == LOADED
        number, log = loads(container, call(TRACE_PRINTK) + bpf.RETURN_0, SCHED_CLS, "prints")
        assert number, log
        told = last(container)
        assert (told.reason, told.what) == ("perfmon", "trace_printk")
        return f"{found}; {told}; {log}"


@on(*TOKENS)
def case_types_and_instructions(context: Context) -> str:
    """What isn't on the lists isn't made, whatever is delegated."""
    del context
    with trusted() as container:
        assert loads(container, bpf.RETURN_0, 31)[0] == 22  # syscall, which has to be sleepable.
    with marked() as container:
        assert loads(container, bpf.RETURN_0, 31) == REFUSED
        assert (last(container).reason, last(container).what) == ("type", "syscall")
        assert loads(container, ACQUIRE, SCHED_CLS) == REFUSED
        assert last(container).reason == "instruction"
        return str(last(container))


@on(*TOKENS)
def case_long_programs(context: Context) -> None:
    """What is wrong is found wherever it is."""
    del context
    plain = bytes.fromhex("b700000000000000")
    with marked() as container:
        for before in (0, 31, 32, 63, 65, 1000):
            for wrong in (call(GET_CURRENT_PID_TGID), variable("bpf_prog_active")[:16]):
                code = plain * before + wrong + bpf.RETURN_0
                assert loads(container, code, SCHED_CLS) == REFUSED, before
                assert last(container).instruction == before
            found = plain * before + function(LISTED[0])
            assert loads(container, found, SCHED_CLS) == LOADED, before


@on(*TOKENS)
def case_tokens_are_counted(context: Context) -> None:
    """One of root's user namespaces has so many, and gets a new one where one has gone."""
    del context

    def make() -> tuple[int, int, bool]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * TOKENS_OF_USER,) * 2)
        bpffs = os.open("/sys/fs/bpf", os.O_RDONLY | os.O_DIRECTORY)
        held = []
        try:
            while True:
                held.append(probe_bpf.token_create(bpffs))
        except OSError as error:
            number = error.errno or 0
        count = len(held)
        os.close(held.pop())
        return count, number, at_last(lambda: _made(bpffs))

    with marked() as container:
        assert as_root(container, make) == (TOKENS_OF_USER, 1, True)
        assert last(container).reason == "tokens"
    with marked() as container:
        assert loads(container, bpf.RETURN_0, SOCKET_FILTER) == LOADED


def _made(bpffs: int) -> bool:
    try:
        os.close(probe_bpf.token_create(bpffs))
    except PermissionError:
        return False
    return True


@on(*TOKENS)
def case_the_same_grant_again(context: Context) -> None:
    """It is the one that is there only if it is held as it is to be."""
    del context
    with guard.in_force() as force, marked() as container:
        assert not mount(container, force)
        assert mount(container, None)
        assert not mount(container, None)
        assert loads(container, bpf.RETURN_0, TRACEPOINT) == LOADED
        assert mount(container, force)
        assert loads(container, bpf.RETURN_0, TRACEPOINT) == REFUSED


@on(*ENDS)
def case_what_was_refused_is_on_record(context: Context) -> list[Any]:
    """In the trail once, with its name; doctor and inspect have it too."""
    del context
    forked("guard", "audit")
    with confined() as container:
        assert loads(container, kfuncs(*NOT_LISTED), SCHED_CLS, "asks") == REFUSED
        pid = str(container.init.pid)
        assert forked("guard", "audit")["recorded"] == 1
        assert forked("guard", "audit")["recorded"] == 0
        lines = [json.loads(line) for line in AUDIT.read_text().splitlines()]
        told = [line["guard"] for line in lines if line["outcome"] == "guarded"][-1]
        assert (told["what"], told["program"]) == (NOT_LISTED[0], "asks")
        shown = forked("doctor", "--pid", pid, code=20)
        about = [one for one in shown["findings"] if one["what"] == "guard"]
        assert NOT_LISTED[0] in json.dumps(about), shown
        (one,) = (row for row in forked("inspect") if row["container"]["pid"] == int(pid))
        assert one["confined"] is True
        assert NOT_LISTED[0] in json.dumps(one), one
        return [told, about, one]


# ---- what it outlives


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


@on(*TOKENS)
def case_other_lists(context: Context) -> str:
    """Another version has a mode of loads on them that most programs have, and a map less."""
    del context
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


@on("sid")
def case_killed_at_every_step(context: Context) -> int:
    """The old guard or the new one is in force, and holds who was held."""
    del context
    enums = kernel.enums(KINDS)
    steps = 0
    with marked() as container, other_lists(about="yet another"):
        found = lists.lists(lists.types(), enums[PROGS.option], enums[MAPS.option])
        before = load.loaded()
        assert before != found.digest
        with Object(Libbpf(), str(lists.OBJECT)) as object_:
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


# ---- without it


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
