"""The launcher's whole run, and its peak memory, against the bare interpreter's."""

import json
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.support.scratch import LAUNCHER, Scratch

from .policies import Policy, put_back
from .samples import Candidate, Group, measure, milliseconds, part

HERE: Final = Path(__file__).parent
BARE: Final = ("/usr/bin/python3", "-ISE", "-c", "pass")
# What a hook written without regard to its start would import.
_NAIVE: Final = ("/usr/bin/python3", "-c", "import argparse, ctypes, json, logging, socket")
# As hooks.d/oci-bpf-hook.json sets it.
ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

# A typical request, the same as masks for the floor, and as bpffs shows it in the end.
REQUEST: Final = {
    "io.bpffs.delegate_cmds": "map_create:prog_load:btf_load",
    "io.bpffs.delegate_maps": "hash:array",
    "io.bpffs.delegate_progs": "xdp:cgroup_skb",
    "io.bpffs.delegate_attachs": "xdp:cgroup_inet_ingress",
}
MASKS: Final = ("0x40021", "0x6", "0x140", "0x2000000001")
_SHOWN: Final = (
    "delegate_cmds=map_create:prog_load:btf_load,delegate_maps=hash:array,"
    "delegate_progs=xdp:cgroup_skb,delegate_attachs=cgroup_inet_ingress:xdp"
)
# What engines set on a container that asks for nothing.
_OTHERS: Final = {
    "io.container.manager": "libpod",
    "org.opencontainers.image.stopSignal": "15",
}

_MANY: Final = 10_000
_LAUNCHER_BUDGET: Final = 2.0
_MEMORY_BUDGET: Final = 1.3


def compile_c(source: Path, directory: Path) -> Path:
    """Compile the C program `source` into the `directory`; any warning is an error."""
    program = directory / source.stem
    flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", str(program), str(source)], check=True)
    return program


def _state(container: Scratch, annotations: dict[str, str]) -> bytes:
    return json.dumps(container.state(annotations)).encode()


def _check_mount(container: Scratch) -> None:
    # A run that did nothing would be a fast one.
    mounts = container.mounts()
    if len(mounts) != 1 or not mounts[0].endswith(_SHOWN):
        raise RuntimeError(f"not what was asked for: {mounts}")


def _in_container(
    command: Callable[[Scratch], Sequence[str]],
    annotations: dict[str, str],
    timed: Callable[[Sequence[str], bytes], float],
    *,
    mounts: bool = True,
    policy: Policy | None = None,
) -> Callable[[ExitStack], Callable[[], float]]:
    """The `prepare` of a candidate that is run for a fresh container."""

    def prepare(stack: ExitStack) -> Callable[[], float]:
        container = stack.enter_context(Scratch())
        argv, stdin = command(container), _state(container, annotations)

        def run() -> float:
            if policy:
                policy.use()
            figure = timed(argv, stdin)
            if mounts:
                _check_mount(container)
            return figure

        return run

    return prepare


def _outside(
    argv: Sequence[str], timed: Callable[[Sequence[str], bytes], float]
) -> Callable[[ExitStack], Callable[[], float]]:
    """The `prepare` of a candidate that needs no container."""
    return lambda _stack: lambda: timed(argv, b"{}")


def _launcher_command(_container: Scratch) -> Sequence[str]:
    return [str(LAUNCHER)]


def _time(argv: Sequence[str], stdin: bytes) -> float:
    return milliseconds(argv, stdin=stdin, env=ENVIRONMENT)


def _candidates(hundred: Policy, thousands: Policy, many: int) -> list[Candidate]:
    """The launcher with a request, by either policy, and without one; and bare interpreters.

    `many` is how many rules the policy of `thousands` has.
    """
    return [
        Candidate(
            name="bare",
            label="the bare interpreter",
            prepare=_outside(BARE, _time),
        ),
        Candidate(
            name="request",
            label="the hook, a request mounted",
            prepare=_in_container(_launcher_command, REQUEST, _time, policy=hundred),
            budget=_LAUNCHER_BUDGET,
        ),
        Candidate(
            name="rules",
            label=f"the same, with a policy of {many:,} rules",
            prepare=_in_container(_launcher_command, REQUEST, _time, policy=thousands),
        ),
        Candidate(
            name="nothing",
            label="the hook, nothing asked",
            prepare=_in_container(_launcher_command, _OTHERS, _time, mounts=False),
        ),
        Candidate(
            name="naive",
            label="python3 importing json, ctypes, socket, ...",
            prepare=_outside(_NAIVE, _time),
        ),
    ]


def _floor(directory: Path) -> Candidate:
    """The same system calls in C, compiled into `directory`."""
    floor = compile_c(HERE / "floor.c", directory)

    def command(container: Scratch) -> Sequence[str]:
        target = [str(container.init.pid), str(container.root), "sys/fs/bpf"]
        return [str(floor), *target, *MASKS]

    return Candidate(
        name="floor",
        label="the same system calls in C",
        prepare=_in_container(command, REQUEST, _time),
    )


def launcher(directory: Path, *, rounds: int, compiler: bool) -> Group:
    """The launcher's time; compiles the floor into `directory` if there is a `compiler`.

    The budget is for a policy of 100 rules; one of 10,000 is beside it, in a whole run.
    """
    many = part(_MANY, rounds)
    hundred, thousands = Policy(directory, 100), Policy(directory, many)
    # A file that has just changed is compiled anew at each request: the small one meanwhile.
    hundred.compile()
    thousands.compile()
    candidates = _candidates(hundred, thousands, many)
    if compiler:
        candidates.append(_floor(directory))
    try:
        return measure("launcher", "The hook's whole run", candidates, rounds=rounds)
    finally:
        put_back()


def memory(directory: Path, *, rounds: int) -> Group:
    """The launcher's peak memory; needs a compiler."""
    peak = str(compile_c(HERE / "peak.c", directory))
    # Compiled before: what reads YAML is several times as large.
    policy = Policy(directory / "memory", 100)
    policy.compile()

    def resident(argv: Sequence[str], stdin: bytes) -> float:
        command = [peak, *argv]
        done = subprocess.run(
            command, input=stdin, capture_output=True, check=False, env=ENVIRONMENT
        )
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {command}\n{done.stderr.decode()}")
        return int(done.stdout) / 1024

    # What is small must come out small: this process is larger than any interpreter here.
    control, bare = resident(["/bin/true"], b""), resident(BARE, b"")
    if control > bare / 2:
        raise RuntimeError(f"/bin/true has {control} MiB and an interpreter {bare}: not its own")
    try:
        return measure(
            "memory",
            "Peak resident memory, of the largest process",
            [
                Candidate(
                    name="bare", label="the bare interpreter", prepare=_outside(BARE, resident)
                ),
                Candidate(
                    name="request",
                    label="the hook, a request mounted",
                    prepare=_in_container(_launcher_command, REQUEST, resident),
                    budget=_MEMORY_BUDGET,
                ),
                Candidate(
                    name="nothing",
                    label="the hook, nothing asked",
                    prepare=_in_container(_launcher_command, _OTHERS, resident, mounts=False),
                ),
            ],
            rounds=rounds,
            unit="MiB",
        )
    finally:
        put_back()
