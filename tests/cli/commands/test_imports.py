"""What each command imports, and doesn't: in an interpreter of its own, as it is run."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.cli.options.table import ENTRIES
from tests.support.places import ROOT
from tests.support.policy import in_force

# What takes long to import, or does what most commands never do.
DEAR = {
    *("_ctypes", "_ssl", "asyncio", "dataclasses", "jsonschema", "logging", "rich", "subprocess"),
    *("unittest", "yaml"),
}
# importlib is there for import_module, and brings the others.
ALLOWED = {"importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"}
POD = "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a}]}\n"
UNIT = "[Container]\nAnnotation=io.bpffs.profile=xdp\n"
INCUS = "config: {security.bpffs.delegate_cmds: any}\n"
ASK = "--annotation=io.bpffs.delegate_cmds=map_create"
# A call, what of DEAR it may import, and which commands' modules beside its own.
CALLS = [
    # Without a library of ours: that is pyelftools' own doing.
    (("advise", "/usr/sbin/execsnoop"), {"dataclasses"}, set()),
    (("record", "--diff", "advised.json", "advised.json"), {"_ctypes", "subprocess"}, set()),
    (("cdi", "generate", "--profile", "xdp", "--output", "-"), {"subprocess"}, set()),
    # Whether the guard is in force is asked by a system call.
    (("check", ASK), {"_ctypes"}, set()),
    (("check", "--file", "config.json"), set(), set()),
    (("check", "--file", "probe.container"), {"_ctypes"}, set()),
    (("check", "--file", "pod.yaml"), {"yaml"}, set()),
    (("explain", ASK), {"_ctypes"}, {"check"}),
    (("help",), set(), set()),
    (("help", "lint"), set(), {"lint"}),
    (("kernel",), set(), set()),
    (("kernel", "--header", "/usr/include/linux/bpf.h"), set(), set()),
    (("lint", ASK), set(), set()),
    (("lint", "--file", "probe.container"), set(), {"check"}),
    (("policy", "show"), set(), set()),
    (("policy", "test", ASK), set(), set()),
    (("convert", "--from", "annotations", "--to", "podman", "list"), set(), set()),
    (("convert", "--from", "systemd", "--to", "quadlet", "unit"), set(), set()),
    (("convert", "--from", "incus", "--to", "systemd", "incus.yaml"), {"yaml"}, set()),
    (("inject", "--undo", "."), set(), set()),
    (("inspect",), {"_ctypes"}, set()),
    (("doctor",), {"_ctypes", "subprocess"}, set()),
    (("install", "--dry-run"), {"subprocess"}, set()),
    # libseccomp has the list of names.
    (("seccomp",), {"_ctypes"}, set()),
    (("uninstall", "--dry-run"), {"_ctypes", "subprocess"}, {"guard", "install"}),
]
_RUN = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
before = set(sys.modules)
from oci_bpf_hook.cli.main import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write(" ".join(set(sys.modules) - before))
"""


def imported(*arguments: str, cwd: Path) -> set[str]:
    """The modules that the command imports with these arguments, beside the interpreter's own."""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", _RUN, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    notes, _, modules = done.stderr.rpartition("\n")
    assert "oci-bpf-hook: " not in notes
    return set(modules.split())


def commands(modules: set[str]) -> set[str]:
    """The commands whose own modules are among these."""
    return {entry.name for entry in ENTRIES if f"oci_bpf_hook.cli.commands.{entry.name}" in modules}


def dear(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & DEAR


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "pod.yaml").write_text(POD)
    (tmp_path / "probe.container").write_text(UNIT)
    (tmp_path / "unit").write_text("[Service]\nBPFDelegateCommands=any\n")
    (tmp_path / "list").write_text("io.bpffs.delegate_cmds=any\n")
    (tmp_path / "incus.yaml").write_text(INCUS)
    (tmp_path / "advised.json").write_text('{"delegate_cmds": ["map_create"]}')
    (tmp_path / "config.json").write_text('{"process": {}}')
    (tmp_path / "policy.yaml").write_text("version: 1\nrules: []\n")
    # Another would have to be compiled now and then.
    with in_force(None):
        yield tmp_path


@pytest.mark.parametrize("call", [("--help",), ("--version",), ()], ids=str)
def test_help_imports_next_to_nothing(call: tuple[str, ...], tmp_path: Path) -> None:
    modules = imported(*call, cwd=tmp_path)
    ours = {name.removeprefix("oci_bpf_hook") for name in modules if "oci_bpf_hook" in name}
    assert ours == {
        "",
        ".cli",
        ".cli.main",
        ".cli.options",
        ".cli.options.table",
        ".errors",
        ".values",
    }
    assert {name for name in modules if "oci_bpf_hook" not in name} <= ALLOWED


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_commands_help_imports_that_command(tmp_path: Path, entry: object) -> None:
    name = str(getattr(entry, "name", ""))
    modules = imported(name, "--help", cwd=tmp_path)
    assert name in commands(modules)
    assert not dear(modules) & {"jsonschema", "rich", "yaml"}


def named(value: tuple[str, ...] | set[str]) -> str:
    """A test's name, the same in every process: a set has no order."""
    return str(value if isinstance(value, tuple) else sorted(value))[:60]


@pytest.mark.parametrize(("call", "allowed", "beside"), CALLS, ids=named)
def test_what_a_command_imports(
    call: tuple[str, ...], allowed: set[str], beside: set[str], directory: Path
) -> None:
    modules = imported(*call, cwd=directory)
    assert commands(modules) == {call[0]} | beside
    assert dear(modules) == allowed


def test_a_policy_takes_what_reads_it(directory: Path) -> None:
    modules = imported("check", "--policy", "policy.yaml", ASK, cwd=directory)
    assert {"yaml", "jsonschema"} <= dear(modules)
    assert "rich" not in modules
