"""What the hook imports in front of a container's start: a budget of modules, not of time."""

import json
import subprocess

import pytest

from oci_bpf_hook.policy.store import cache, source
from tests.support.policy import CACHE, UNCONFINED, in_force
from tests.support.scratch import LAUNCHER, Scratch

# Modules of C, each a few tens of microseconds, beside what a bare interpreter has.
ALLOWED = {"_ctypes", "_json", "_signal", "_socket", "_struct", "errno", "fcntl", "gc"}
ASKED = {
    *("bpf.names", "delegation.annotations", "errors", "hook.main", "hook.process"),
    *("loader", "oci.state", "text.strict_json", "values"),
}
GRANT = {
    *("audit.case", "audit.write", "bpf.type_facts", "container.namespaces"),
    *("delegation.lint", "delegation.masks", "files", "kernel.syscalls", "mount.child"),
    *("mount.container_half", "mount.host_half", "paths", "policy.compiled"),
    *("policy.decide", "policy.store.cache", "policy.subject", "syslog"),
}
# What looks for the guard, where the rule doesn't say that it does without.
CONFINED = {"guard.confine", "guard.pinned"}
# Once for each boot and each version of the policy: the kernel's names, but never YAML, nor a
# schema, where the built-in policy holds.
FIRST = {"bpf.btf", "kernel.enums", "policy.pack", "policy.store.source", "whole"}


def _loaded(*arguments: str, stdin: str = "") -> set[str]:
    """The modules that an interpreter with the launcher's options imports."""
    command = ["/usr/bin/python3", "-ISE", "-X", "importtime", *arguments]
    run = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()[1:]}


def _imported(state: str) -> tuple[set[str], set[str]]:
    """What the launcher imports for `state` beside what a bare interpreter does: ours, others."""
    loaded = _loaded(str(LAUNCHER), stdin=state) - _loaded("-c", "pass")
    ours = {name for name in loaded if name.partition(".")[0] == "oci_bpf_hook"}
    return {name.partition(".")[2] for name in ours} - {""}, loaded - ours


def test_a_container_that_asks_for_nothing() -> None:
    ours, others = _imported(json.dumps({"id": "x", "annotations": {"a": "b"}}))
    assert ours == ASKED
    assert others <= ALLOWED - {"_ctypes", "_socket"}


ASK = {
    "io.bpffs.delegate_cmds": "map_create:btf_load",
    "io.bpffs.delegate_maps": "hash,lru_hash,!hash",
}
ASK_FOR_PROGRAMS = ASK | {
    "io.bpffs.delegate_cmds": "map_create:prog_load:btf_load",
    "io.bpffs.delegate_progs": "BPFProgTypeSocketFilter",
    "io.bpffs.delegate_attachs": "0x1",
}


def _granted(annotations: dict[str, str]) -> tuple[set[str], set[str]]:
    with Scratch() as container:
        ours, others = _imported(json.dumps(container.state(annotations)))
        assert len(container.mounts()) == 1
    return ours, others


def test_a_grant_by_the_built_in_policy() -> None:
    with in_force(None):
        CACHE.unlink(missing_ok=True)
        for more in (FIRST, set[str]()):
            ours, others = _granted(ASK)
            assert ours == ASKED | GRANT | CONFINED | more
            if not more:
                assert others <= ALLOWED
            assert not others & {"yaml", "jsonschema", "site"}


def test_a_grant_that_is_not_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    # A file that has just been written is compiled anew each time, until it has settled.
    monkeypatch.setattr(source, "SETTLED", -1)
    with in_force(UNCONFINED):
        cache.in_force()
        ours, others = _granted(ASK_FOR_PROGRAMS)
    assert ours == ASKED | GRANT
    assert others <= ALLOWED
