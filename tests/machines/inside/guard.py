"""The guard on kernels that can have it: what it refuses, and what it leaves alone.

The kernel functions and helpers that are tried do no harm: they lock RCU, or switch preemption of
this machine off and on.  The cases are in the order in which they run: the guard is on from the
second on, and stays on for those of `guard_outlives`.
"""

import json
import os
import resource
from typing import Any, Final

from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.kernel import bpf as probe_bpf
from oci_bpf_hook.kernel import process
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
    NOT_LISTED,
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
GET_CURRENT_PID_TGID, TRACE_PRINTK = 14, 6
# r0 = 0; lock acquire load into r1 from r10 - 8; exit
ACQUIRE: Final = bytes.fromhex("7a0af8ff00000000dba1f8ff00010000b7000000000000009500000000000000")
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


@on(*ENDS)
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


@on(*ENDS)
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


@on(*ENDS)
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
