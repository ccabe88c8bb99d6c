"""What the hook imports in front of a container's start: a budget of modules, not of time."""

import ast

import pytest

from oci_bpf_hook import loader
from oci_bpf_hook.policy.store import cache, source
from tests.support.imports import loaded
from tests.support.places import ROOT
from tests.support.policy import CACHE, UNCONFINED, in_force
from tests.support.scratch import Scratch

PACKAGE = ROOT / "oci_bpf_hook"
# Our modules in a grant: each takes some hundredths of the interpreter's own start.
MODULES = 25
# Modules of C, each a few tens of microseconds, beside what a bare interpreter has.
ALLOWED = {"_ctypes", "_json", "_signal", "_socket", "_struct", "errno", "fcntl", "gc"}
# What the launcher loads before anybody asks for it, and what it then has.
ASKED = {"loader", *loader.ASKED}
GRANT = {*loader.REQUEST, *loader.GRANT}
# What looks for the guard, where the rule doesn't say that it does without.
CONFINED = {"guard.confine", "guard.pinned"}
# Once for each boot and each version of the policy: the kernel's names, but never YAML, nor a
# schema, where the built-in policy holds.
FIRST = {
    "bpf.btf",
    "bpf.enumerators",
    "kernel.enums",
    "policy.pack",
    "policy.store.source",
    "whole",
}


def test_a_container_that_asks_for_nothing() -> None:
    ours, others = loaded(stdin={"id": "x", "annotations": {"a": "b"}})
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
        ours, others = loaded(stdin=container.state(annotations))
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


def test_nothing_is_loaded_in_vain_or_late() -> None:
    """The loader's three lists are what is loaded, each module after all that it imports."""
    names = (*loader.ASKED, *loader.REQUEST, *loader.GRANT)
    assert len(names) <= MODULES
    done: list[str] = []
    for name in names:
        tree = ast.parse((PACKAGE / f"{name.replace('.', '/')}.py").read_text("utf-8"))
        wanted = {
            ".".join([*name.split(".")[: -node.level], *(node.module or "").split(".")])
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.level and node.module
        }
        assert wanted - set(done) - set(loader.FOLDERS) == set(), name
        done.append(name)
