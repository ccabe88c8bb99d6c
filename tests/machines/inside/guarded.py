"""What the cases of the guard share: containers whose bpffs it holds, and programs to try."""

import errno
import json
import os
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from oci_bpf_hook.bpf.btf_types import FUNC, VAR
from oci_bpf_hook.bpf.names import ALL_BITS, KINDS
from oci_bpf_hook.cli import main as cli
from oci_bpf_hook.container.namespaces import Container
from oci_bpf_hook.delegation.masks import Grant
from oci_bpf_hook.guard import pinned as guard
from oci_bpf_hook.guard.lsm import lists, refusals
from oci_bpf_hook.kernel import bpf as probe_bpf
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.mount.host_half import HostHalf
from tests.support.policy import POLICY
from tests.support.scratch import Scratch, io

from . import bpf
from .container import as_root

SOCKET_FILTER, SCHED_CLS, TRACEPOINT = 1, 3, 5
HASH = 1
# A confined program may not call them.
NOT_LISTED: Final = ("bpf_preempt_disable", "bpf_preempt_enable")
REFUSED: Final = (errno.EPERM, "")
LOADED: Final = (0, "")
EVERYTHING: Final = Grant(
    masks={kind.option: ALL_BITS for kind in KINDS}, path="/sys/fs/bpf", mode=0o1777
)
ASKED = io(
    delegate_cmds="map_create:prog_load:btf_load",
    delegate_maps="hash:array",
    delegate_progs="socket_filter:sched_cls",
    delegate_attachs="cgroup_inet_ingress",
)
_MOV_R1_0: Final = "b701000000000000"
_JEQ_R1_0_OVER_ONE: Final = "1501010000000000"


def command(*arguments: str, code: int = 0) -> Any:
    """What the command says as JSON, with that exit code."""
    words = [sys.executable, "-m", "oci_bpf_hook", *arguments, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return _answer(done.returncode, done.stdout, done.stderr, code)


def forked(*arguments: str, code: int = 0) -> Any:
    """The same of a child that has this process's modules, and has read the kernel's types.

    Both take a machine seconds for each command.  `command` is for the cases that are about that
    command first of all.
    """
    words = [*arguments, "--json"]
    cli._parser(words)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        lists.types()
        pid = os.fork()
        if pid == 0:
            _become(out.fileno(), errors.fileno(), words)
        _, status = os.waitpid(pid, 0)
        for file in (out, errors):
            file.seek(0)
        return _answer(os.waitstatus_to_exitcode(status), out.read(), errors.read(), code)


def _become(out: int, errors: int, words: list[str]) -> NoReturn:
    result = -1
    try:
        os.dup2(out, 1)
        os.dup2(errors, 2)
        result = cli.main(words)
    except BaseException:  # noqa: BLE001  Nothing of the parent's is to run in its child.
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
        os._exit(result & 0xFF)


def _answer(returned: int, out: str, errors: str, code: int) -> Any:
    assert returned == code, (returned, out, errors)
    return json.loads(out) if out else errors


@contextmanager
def built_in_policy() -> Iterator[None]:
    """The policy that holds where there is no file."""
    away = Path("/policy.yaml")
    POLICY.rename(away)
    try:
        yield
    finally:
        away.rename(POLICY)


@contextmanager
def confined() -> Iterator[Scratch]:
    """A container that the hook gives something by the built-in policy."""
    with built_in_policy(), Scratch(network=True) as container:
        done = container.hook(ASKED)
        assert done.returncode == 0, done.stderr
        yield container


@contextmanager
def marked() -> Iterator[Scratch]:
    """One with all there is, which the guard holds: more than any policy gives."""
    with Scratch(network=True) as container:
        # As long as it is open after a mark, the guard isn't turned off.
        with guard.in_force() as force:
            mount(container, force)
        yield container


@contextmanager
def trusted() -> Iterator[Scratch]:
    """One with all there is that nobody has marked, as another engine's is."""
    with Scratch(network=True) as container:
        mount(container, None)
        yield container


def mount(container: Scratch, force: guard.Guard | None) -> bool:
    """Mount EVERYTHING there; whether that took a new mount."""
    with (
        Container(container.init.pid) as process,
        HostHalf(process, str(container.root)) as half,
    ):
        mounted = half.mount(EVERYTHING, kernel.enums(KINDS), guard=force)
        if mounted:
            half.keep()
    return mounted


def loads(
    container: Scratch,
    code: bytes,
    kind: int,
    name: str = "",
    *,
    capabilities: Collection[int] | None = None,
) -> tuple[int, str]:
    """The errno of loading it there through a token, and the verifier's log where that ran."""

    def load() -> tuple[int, str]:
        loaded = bpf.prog_load(code, kind, token=bpf.token(), name=name)
        return loaded.errno, loaded.log

    return as_root(container, load, capabilities=capabilities)


def at_last(check: Callable[[], bool]) -> bool:
    """Whether it is so, once the kernel's worker has detached or freed what was let go just now."""
    for _ in range(1000):
        if check():
            return True
        os.sched_yield()
    return False


def makes(container: Scratch, kind: int) -> int:
    """The errno of making a map of that type there through a token."""

    def make() -> int:
        try:
            probe_bpf.map_create(kind, bpf.token())
        except OSError as error:
            return error.errno or 0
        return 0

    return as_root(container, make)


def last(container: Scratch) -> refusals.Refusal:
    """What was refused there last."""
    return refusals.of_space(os.stat(f"/proc/{container.init.pid}/ns/user").st_ino)[0]


def call(number: int, *, source: int = 0, offset: int = 0) -> bytes:
    return struct.pack("=BBhi", 0x85, source << 4, offset, number)


def kfuncs(*names: str) -> bytes:
    """A program that calls these kernel functions, which take nothing, and returns 0."""
    calls = [call(lists.types().named(name, FUNC)[0], source=2) for name in names]
    return b"".join(calls) + bpf.RETURN_0


def address(name: str, kind: int) -> bytes:
    """A program that has the address of a kernel variable or function, and returns 0."""
    (number, *_) = lists.types().named(name, kind)
    return struct.pack("=BBhi", 0x18, 0x31, 0, number) + bytes(8) + bpf.RETURN_0


def variable(name: str) -> bytes:
    return address(name, VAR)


def function(name: str) -> bytes:
    """As bpf_ksym_exists() has it."""
    return address(name, FUNC)


def dead(code: bytes) -> bytes:
    """A program in which one instruction is never reached."""
    return bytes.fromhex(_MOV_R1_0 + _JEQ_R1_0_OVER_ONE) + code + bpf.RETURN_0


def raises(function: Callable[[], object]) -> str:
    """What the guard's absence is called."""
    try:
        function()
    except guard.AbsentError as error:
        return str(error)
    raise AssertionError("the guard is in force")
