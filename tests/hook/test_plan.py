"""The plan against the kernel: the steps of a traced run, and the line that mount(8) shows."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.delegation.annotations import parse
from oci_bpf_hook.delegation.masks import Grant, resolve
from oci_bpf_hook.hook.plan import (
    BROKER,
    BROKERS_CHILD,
    CONTAINER,
    CREATE_CONTAINER,
    HOST,
    Step,
    mount_line,
    steps,
)
from oci_bpf_hook.kernel import enums as kernel
from tests.support.places import ROOT
from tests.support.scratch import FIRST_ID, Scratch, io, run_hook

ENUMS = kernel.enums(KINDS)
TRACED = ("setns", "openat2", "fsopen", "fsconfig", "fsmount", "fchmod", "move_mount")
REQUESTS = [
    io(delegate_cmds="map_create:prog_load"),
    io(delegate_cmds="any", mode="0755"),
    io(delegate_cmds="any,!0x8000000000000000", delegate_progs="any,!kprobe", mode="2751"),
    io(delegate_maps="0x8000000000000002", mode="0777"),
    io(delegate_maps="0x8000000000000000", path="/opt/a b/c"),
    io(delegate_attachs="cgroup_inet_ingress:xdp", delegate_cmds="prog_run", path="/opt"),
]


def grant(annotations: dict[str, str]) -> Grant:
    request = parse(annotations, lambda: None)
    assert request is not None
    return resolve(request, ENUMS, kernel.table, {})[0]


@pytest.mark.parametrize("annotations", REQUESTS, ids=lambda one: ",".join(one.values()))
def test_the_line_of_mount(annotations: dict[str, str]) -> None:
    with Scratch() as container:
        assert container.hook(annotations).returncode == 0
        shown = container.enter("mount", "-t", "bpf").stdout.replace(str(container.root), "")
    assert shown == mount_line(grant(annotations), ENUMS, (FIRST_ID, FIRST_ID)) + "\n"


def test_the_line_where_the_owner_isnt_known() -> None:
    line = mount_line(grant(REQUESTS[0]), ENUMS, None)
    assert line == (
        "bpf on /sys/fs/bpf type bpf (rw,nosuid,nodev,noexec,relatime,uid=UID,gid=GID,"
        "delegate_cmds=map_create:prog_load)"
    )


def traced(annotations: dict[str, str], log: Path) -> tuple[list[tuple[str, str, str]], str]:
    """The half, the name and the arguments of each call of a real run; and the root filesystem."""
    prefix = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(TRACED)}"]
    with Scratch() as container:
        state = json.dumps(container.state(annotations))
        assert run_hook(state, prefix=prefix).returncode == 0
        root = str(container.root)
    calls = []
    lines = log.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if "setns" in line)
    first = lines[begin].split()[0]
    # Before the halves begin, the hook may keep the compiled policy, once its file has settled.
    for line in lines[begin:]:
        match = re.fullmatch(r"(\d+) +(\w+)\((.*)\) += .*", line)
        if match and not line.endswith("(No such file or directory)"):
            half = CONTAINER if match[1] == first else HOST
            calls.append((half, match[2], match[3]))
    return calls, root


@pytest.mark.parametrize("annotations", REQUESTS[:2], ids=lambda one: ",".join(one.values()))
def test_the_steps_of_a_real_run(annotations: dict[str, str], tmp_path: Path) -> None:
    calls, root = traced(annotations, tmp_path / "log")
    planned = [
        (step.half, *name(step))
        for step in steps(grant(annotations), root, ENUMS, broker=False)
        if name(step)[0] in TRACED
    ]
    # To be sure that it isn't the host's, it opens that too.
    calls = [call for call in calls if '"/"' not in call[2]]
    assert [call[:2] for call in calls] == [step[:2] for step in planned]
    for (_, _, real), (_, _, said) in zip(calls, planned, strict=True):
        for word in re.findall(r'"[^"]*"|CLONE_\w+|RESOLVE_\w+|FSCONFIG_\w+|MOUNT_ATTR_\w+', said):
            assert word in real


@contextmanager
def broker(log: Path) -> Iterator[None]:
    """A broker at the place where hooks look for one, traced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(log.with_suffix(".ready")))
        command = [*strace(log), sys.executable, "-m", "oci_bpf_hook", "broker"]
        environment = {**os.environ, "NOTIFY_SOCKET": str(log.with_suffix(".ready"))}
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            assert ready.recv(64) == b"READY=1"
            yield
        finally:
            # strace passes nothing on: the broker is its one child, and ends it.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            os.kill(int(children.split()[0]), signal.SIGTERM)
            process.wait()


def strace(log: Path) -> list[str]:
    calls = ",".join((*TRACED, "connect"))
    return ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls}"]


def test_the_steps_with_a_broker(tmp_path: Path) -> None:
    annotations = io(delegate_cmds="map_create:prog_load", mode="0755")
    with Scratch() as container, broker(tmp_path / "broker"):
        prefix = [*strace(tmp_path / "hook"), *container.entering()]
        result = run_hook(container.state(annotations, pid=0), prefix=prefix)
        assert (result.returncode, result.stderr) == (0, "")
        root = str(container.root)
        assert len(container.mounts()) == 1
    plan = steps(grant(annotations), root, ENUMS, stage=CREATE_CONTAINER, broker=True)
    for log, halves in (("hook", (CONTAINER,)), ("broker", (BROKER, BROKERS_CHILD))):
        planned = [
            name(step)
            for step in plan
            if step.half in halves and name(step)[0] in (*TRACED, "connect")
        ]
        real = [
            match.groups()
            for line in (tmp_path / log).read_text().splitlines()
            if (match := re.fullmatch(r"\d+ +(\w+)\((.*)\) += .*", line))
            # What nsenter does, other sockets, and being sure that the root isn't the host's.
            and not (log == "hook" and match[1] == "setns")
            and not (match[1] == "connect" and "broker.sock" not in line)
            and '"/"' not in line
        ]
        wanted = [
            (call, arguments)
            for call, text in planned
            for arguments in (text.split("), setns(") if call == "setns" else [text])
        ]
        # What it does before it serves anybody is not of the plan.
        first = next(number for number, (call, _) in enumerate(real) if call == wanted[0][0])
        real = real[first:]
        assert [call for call, _ in real] == [call for call, _ in wanted]
        for (_, made), (_, said) in zip(real, wanted, strict=True):
            for word in re.findall(r'"[^"]*"|CLONE_\w+|FSCONFIG_\w+|MOUNT_ATTR_\w+', said):
                assert word in made


def name(step: Step) -> tuple[str, str]:
    call, _, arguments = step.call.partition("(")
    return call, arguments


def test_the_steps_name_every_mask() -> None:
    wanted = grant(io(delegate_cmds="any", delegate_maps="hash", delegate_progs="0x40"))
    calls = [step.call for step in steps(wanted, "/r", ENUMS, broker=False)]
    assert 'fsconfig(FSCONFIG_SET_STRING, "delegate_cmds", "0xffffffffffffffff")' in calls
    assert 'fsconfig(FSCONFIG_SET_STRING, "delegate_maps", "0x2")' in calls
    assert 'fsconfig(FSCONFIG_SET_STRING, "delegate_progs", "0x40")' in calls
    assert not any("delegate_attachs" in call for call in calls)
