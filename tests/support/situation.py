"""Hosts and containers with something wrong, arranged for real, and what doctor says of them."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import jsonschema

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.container.namespaces import Container
from oci_bpf_hook.delegation.masks import Grant, bits
from oci_bpf_hook.kernel import bpf
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.kernel.process import unshare
from oci_bpf_hook.kernel.syscalls import CLONE_NEWNS
from oci_bpf_hook.mount import container_half
from oci_bpf_hook.mount.host_half import HostHalf
from tests.support.command import command as here
from tests.support.places import ROOT
from tests.support.podman import IMAGE, World

from .scratch import Scratch

DOCTOR_SCHEMA = json.loads((ROOT / "schema" / "doctor.schema.json").read_text())
SOCKET = {
    "delegate_cmds": "map_create:prog_load:btf_load",
    "delegate_maps": "hash",
    "delegate_progs": "socket_filter",
    "delegate_attachs": "cgroup_inet_ingress",
}
BPFFS = "/sys/fs/bpf"


def command(
    *arguments: str,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `oci-bpf-hook` with the arguments, as a person does.

    In this process, unless it is to run in another environment.
    """
    if not (prefix or env or user):
        done = here(*arguments)
        return subprocess.CompletedProcess(arguments, *done)
    return subprocess.run(
        [*prefix, sys.executable, "-m", "oci_bpf_hook", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
        user=user,
    )


def apart(
    script: str, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `oci-bpf-hook` in a mount namespace of its own, in which the shell `script` comes first.

    A fork of this process runs it. What that has imported, this one imports for the next.
    """
    there = set(sys.modules)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.environ.update(env or {})
            unshare(CLONE_NEWNS)
            subprocess.run(["sh", "-ec", script], check=True)
            with open(writer, "w", encoding="utf-8") as file:
                json.dump([here(*arguments), sorted(sys.modules.keys() - there)], file)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(pid, 0)
    done, imported = json.loads(text)
    for name in imported:
        importlib.import_module(name)
    return subprocess.CompletedProcess(arguments, *done)


def findings(
    *arguments: str,
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    user: int | None = None,
) -> list[dict[str, str]]:
    """What doctor finds."""
    return found_by(command("doctor", "--json", *arguments, prefix=prefix, env=env, user=user))


def found_by(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    """What doctor has found, from what it printed as JSON."""
    assert done.stderr == "", done.stderr
    answer = json.loads(done.stdout)
    jsonschema.validate(answer, DOCTOR_SCHEMA)
    found: list[dict[str, str]] = answer["findings"]
    assert done.returncode == (20 if any(one["state"] == "problem" for one in found) else 0)
    return found


def not_well(found: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """What isn't well among what was found, by its name."""
    return {one["what"]: one for one in found if one["state"] != "ok"}


def masks(lists: Mapping[str, str]) -> dict[str, int]:
    """Masks for these `delegate_*` lists."""
    enums = kernel.enums(KINDS)
    found = {}
    for option, text in lists.items():
        found[option] = 0
        for item in text.split(":"):
            found[option] |= bits(item, enums[option]) or 0
    return found


def delegate(pid: int, lists: Mapping[str, str], *, path: str = BPFFS, mode: int = 0o1777) -> None:
    """Delegate that to a process that runs, by the two halves alone."""
    grant = Grant(masks=masks(lists), path=path, mode=mode)
    with Container(pid) as container, HostHalf(container, container_half.RUNNING) as half:
        assert half.mount(grant, kernel.enums(KINDS))
        half.keep()


@contextmanager
def workload(
    *how: str, network: bool = False, lists: Mapping[str, str] = SOCKET
) -> Iterator[tuple[int, Scratch]]:
    """A process in a container with a delegation, and the container; `how` is a command's start.

    It has a network namespace of its own, but with `network`.
    """
    with Scratch(network=not network) as container:
        delegate(container.init.pid, lists)
        with container.running(*how) as process:
            yield process.pid, container


def with_filter(*how: str) -> list[str]:
    """A command's start that refuses bpf(2) with EPERM by seccomp, as an engine's profile does."""
    code = (
        "import ctypes, os, struct, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "number = int(sys.argv[1])\n"
        # The number; is it bpf(2)?  EPERM, or allow.
        "code = struct.pack('=HBBI', 0x20, 0, 0, 0) + struct.pack('=HBBI', 0x15, 0, 1, number)\n"
        "code += struct.pack('=HBBI', 6, 0, 0, 0x50001)\n"
        "code += struct.pack('=HBBI', 6, 0, 0, 0x7fff0000)\n"
        "buffer = ctypes.create_string_buffer(code, len(code))\n"
        "program = struct.pack('=HxxxxxxQ', len(code) // 8, ctypes.addressof(buffer))\n"
        "libc.prctl(38, 1, 0, 0, 0)\n"
        "assert libc.prctl(22, 2, program, 0, 0) == 0\n"
        "os.execvp(sys.argv[2], sys.argv[2:])\n"
    )
    return [sys.executable, "-IS", "-c", code, str(bpf.arch().bpf), *how]


# Nothing marks what is delegated here, and of every program that isn't confined it is said.
BEYOND = "reaches-beyond"


def others(found: list[dict[str, str]]) -> dict[str, Mapping[str, str]]:
    """What isn't well among what was found, but BEYOND."""
    return {name: one for name, one in not_well(found).items() if name != BEYOND}


@contextmanager
def detached(world: World, *arguments: str, runtime: str = "crun") -> Iterator[str]:
    """A container of podman's that runs, with a delegation by the hook; its name."""
    name = "doctored"
    annotations = [
        part
        for option, text in SOCKET.items()
        for part in ("--annotation", f"io.bpffs.{option}={text}")
    ]
    mapping = "0:100000:65536"
    world.podman(
        *("run", "--detach", "--name", name, "--pull", "never"),
        *("--uidmap", mapping, "--gidmap", mapping, "--cgroup-parent", f"/{world.cgroup_parent}"),
        *annotations,
        *arguments,
        *(IMAGE, "sh", "-c", "trap exit TERM; sleep 1000 & wait"),
        runtime="crun" if runtime == "crun" else "runc",
    )
    try:
        yield name
    finally:
        world.podman("rm", "--force", "--time", "0", name, check=False)
