"""manual_examples.py: what the man pages show, run as it stands, wherever it changes no host."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.cli.manual_examples import EXAMPLES
from oci_bpf_hook.errors import DONE, FOUND, REFUSED, UNKNOWN_NAME
from tests.support.bpf import compiled
from tests.support.places import ROOT
from tests.support.policy import in_force

PROGRAM = "oci-bpf-hook"
# What takes a container, delegates, puts something on the host, or goes on for ever.
LEFT_OUT = re.compile(
    r"NAME\b|IMAGE\b|systemctl|hook (?:broker|delegate|hook|nri|record|cdi)\b|--watch|/etc/|/tmp/|"
    r"install --engine"
)
# What isn't DONE: what the example is about, and whether this kernel has the guard.
CODES = {
    "oci-bpf-hook check --annotation io.bpffs.delegate_cmds=prog_lod": {UNKNOWN_NAME},
    "oci-bpf-hook policy test --annotation io.bpffs.profile=xdp --attr host_network=true": {
        REFUSED
    },
    "oci-bpf-hook doctor": {DONE, FOUND},
    "oci-bpf-hook guard status": {DONE, FOUND},
}
POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations: {io.bpffs.delegate_cmds: map_create, io.bpffs.delegate_maps: hash}
spec:
  hostUsers: false
  containers: [{name: web, image: registry.example/web}]
"""
INSTANCE = """\
name: web
config:
  security.bpffs.delegate_cmds: map_create
  security.bpffs.delegate_maps: hash
"""
STATE = """\
{"ociVersion": "1.0.2", "id": "web", "status": "creating", "pid": 1, "bundle": "/nonexistent",
 "annotations": {"io.bpffs.delegate_cmds": "map_create", "io.bpffs.delegate_maps": "hash"}}
"""
CONFIG = """\
{"ociVersion": "1.0.2", "root": {"path": "/rootfs"}, "process": {"capabilities": {}},
 "linux": {"namespaces": [{"type": "user"}], "uidMappings": [], "gidMappings": []}}
"""


def lines() -> list[tuple[str, str]]:
    """Each line that is run, with those of the same example before it."""
    found: list[tuple[str, str]] = []
    for name, text in EXAMPLES.items():
        for part in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE):
            those = [line[4:] for line in part.splitlines()]
            if not any(map(LEFT_OUT.search, those)):
                found.append((name, "\n".join(those)))
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the files are that examples name, and the programs."""
    here = tmp_path_factory.mktemp("examples")
    bundle = here / "BUNDLE"
    bundle.mkdir()
    (bundle / "config.json").write_text(CONFIG)
    for name, source in {"prog.bpf.o": "prints", "a.o": "variables", "b.o": "functions"}.items():
        (here / name).write_bytes(compiled(source))
    texts = {"pod.yaml": POD, "state.json": STATE, "config.json": CONFIG}
    texts["policy.yaml"] = (ROOT / "oci_bpf_hook" / "policy.yaml").read_text()
    for name, text in texts.items():
        (here / name).write_text(text)
    programs = here / "bin"
    programs.mkdir()
    words = f"PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)}"
    run = f'#!/bin/sh\n{words} -m oci_bpf_hook "$@"\n'
    for name, text in ((PROGRAM, run), ("incus", f"#!/bin/sh\ncat <<END\n{INSTANCE}END\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with in_force(None):
        yield here


@pytest.mark.parametrize(("name", "line"), lines())
def test_it_does_what_is_said(name: str, line: str, directory: Path) -> None:
    environment = {**os.environ, "PATH": f"{directory / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-ec", line],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    allowed = CODES.get(line, {DONE})
    if "needs the guard, which isn't in force" in done.stdout:
        # Whether it is depends on the host, which may have no BPF LSM.
        allowed = {REFUSED}
    assert done.returncode in allowed, done.stdout + done.stderr
    assert done.stdout or "--html" in line, name


def test_most_are_run() -> None:
    every = sum(text.count("\n    ") for text in EXAMPLES.values())
    assert sum(line.count("\n") + 1 for _, line in lines()) > every // 2
