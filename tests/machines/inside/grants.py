"""Each way to a grant: what the policy has confined the guard holds, and nothing else.

The broker, `delegate` and `record` mark the bpffs that they make by themselves, as the hook does.
That is the same on every kernel, and so one has to do.

The cases are in the order in which they run.  Loading a guard takes a machine seconds, and so the
first case turns it on and the others find it; the last one has another guard, and leaves none.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from oci_bpf_hook.doctor import guarded as doctor
from oci_bpf_hook.guard.lsm import libbpf, load
from oci_bpf_hook.policy.store.cache import in_force
from tests.support.broker import Broker
from tests.support.consumer import library
from tests.support.policy import POLICY
from tests.support.scratch import Scratch, io, run_hook

from . import bpf
from .cases import Context, on
from .guarded import (
    LOADED,
    NOT_LISTED,
    REFUSED,
    SOCKET_FILTER,
    built_in_policy,
    command,
    kfuncs,
    last,
    loads,
)

ASKED: Final = io(
    delegate_cmds="map_create:prog_load:btf_load",
    delegate_maps="hash:array",
    delegate_progs="socket_filter",
    delegate_attachs="cgroup_inet_ingress",
)
# Says what becomes of the programs that it is given, through a token of its own.
_TRIES: Final = f"""
import sys
from tests.machines.inside import bpf
for code in map(bytes.fromhex, sys.argv[1:]):
    print(bpf.prog_load(code, {SOCKET_FILTER}, token=bpf.token()).errno)
"""


def held(container: Scratch) -> None:
    """It loads what it is for, and is refused what isn't on the list."""
    assert loads(container, bpf.RETURN_0, SOCKET_FILTER) == LOADED
    assert loads(container, kfuncs(*NOT_LISTED), SOCKET_FILTER, "asks") == REFUSED
    assert (last(container).reason, last(container).what) == ("kfunc", NOT_LISTED[0])


def free(container: Scratch) -> None:
    """It is trusted with the kernel."""
    assert loads(container, kfuncs(*NOT_LISTED), SOCKET_FILTER) == LOADED


def _both_ways(grant: Callable[[Scratch], None]) -> None:
    """By the built-in policy, which confines, and by the machine's, which trusts everybody."""
    # Nothing is done if it is on.
    load.turn_on()
    with built_in_policy(), Scratch(network=True) as container:
        grant(container)
        held(container)
    assert POLICY.exists()
    with Scratch(network=True) as container:
        grant(container)
        free(container)


@on("trixie")
def case_by_the_hook(context: Context) -> None:
    """And doctor says that the guard is in force, which it didn't before; its status has names."""
    del context

    def grant(container: Scratch) -> None:
        done = container.hook(ASKED)
        assert done.returncode == 0, done.stderr
        told = doctor.of_host(in_force())
        assert (told.state, told.fix) == ("ok", "")
        assert told.why.startswith("it is in force, and confines "), told.why

    with built_in_policy():
        told = doctor.of_host(in_force())
        assert (told.state, told.fix) == ("warning", "oci-bpf-hook guard on")
    _both_ways(grant)
    with built_in_policy(), Scratch(network=True) as container:
        grant(container)
        held(container)
        (newest, *_) = command("guard", "status")["refusals"]
        assert (newest["what"], newest["program"]) == (NOT_LISTED[0], "asks")
        assert newest["space"] == os.stat(f"/proc/{container.init.pid}/ns/user").st_ino
        assert NOT_LISTED[0] in newest["text"]


@on("trixie")
def case_by_the_broker(context: Context) -> None:
    """The mount comes from the broker's half, which marks it before the peer has it."""
    del context

    def grant(container: Scratch) -> None:
        with Broker():
            state = container.state(ASKED, pid=0)
            done = run_hook(state, prefix=container.entering())
        assert done.returncode == 0, done.stderr

    _both_ways(grant)


@on("trixie")
def case_by_the_command(context: Context) -> None:
    """`delegate`, for a container that runs."""
    del context

    def grant(container: Scratch) -> None:
        command(
            *("delegate", "--pid", str(container.init.pid)),
            *("--path", f"{container.root}/sys/fs/bpf"),
            *("--cmds=prog_load", "--progs=socket_filter", "--attachs=cgroup_inet_ingress"),
        )

    _both_ways(grant)


@on("trixie")
def case_by_a_recording(context: Context) -> None:
    """`record`, which gives all that the policy does."""
    del context
    programs = (bpf.RETURN_0.hex(), kfuncs(*NOT_LISTED).hex())
    workload = [sys.executable, "-c", _TRIES, *programs]
    words = [sys.executable, "-m", "oci_bpf_hook", "record", "--", *workload]

    def tried() -> list[int]:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [int(line) for line in done.stdout.split()]

    load.turn_on()
    with built_in_policy():
        assert tried() == [0, 1]
    assert tried() == [0, 0]


@on("trixie")
def case_by_a_guard_that_a_newer_libbpf_has_loaded(context: Context) -> None:
    """All others here are the host's libbpf's, which may be 1.1; this is one that knows tokens."""
    del context
    load.turn_off()
    ours = libbpf._SONAME
    libbpf._SONAME = str(library())
    try:
        assert load.turn_on().changed
        with built_in_policy(), Scratch(network=True) as container:
            assert "pylibbpf" in Path("/proc/self/maps").read_text()
            assert container.hook(ASKED).returncode == 0
            held(container)
    finally:
        libbpf._SONAME = ours
        load.turn_off()
