"""The order of the modules, held by looking at what each imports."""

import ast
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGE = ROOT / "oci_bpf_hook"
PATHS = sorted(PACKAGE.rglob("*.py"))

# Rows of the design's table; a module imports from rows above its own and from its own.
ROWS = (
    ("__init__",),
    # The pure core: no os, no ctypes, no files, no clock.
    (
        *("errors", "values", "names", "strict_json", "annotations", "masks", "unknown", "policy"),
        *("compiled", "refusal", "problems", "subject"),
        *("lint", "btf", "exposures", "header"),
        *("table", "wire", "paths", "places", "mountinfo", "seccomp", "type_facts", "cdi"),
        *("bundle", "seccomprules", "splice", "policypack", "policydoubts"),
        *("advise.__init__", "advise.advice", "advise.btftypes", "advise.calls"),
        *("advise.cautions", "advise.elf", "advise.embedded", "advise.maps"),
        *("advise.needs", "advise.objects", "advise.pointers", "advise.probes", "advise.sections"),
        *("advise.structops", "advise.target"),
        *("recording.__init__", "recording.arch", "recording.attr", "recording.filter"),
        *("recording.learn", "recording.probes", "recording.recording", "recording.strace"),
        "recording.verify",
        *("doctor.__init__", "doctor.finding"),
    ),
    # The edge: the kernel and files.
    (
        *(
            "syscalls",
            "files",
            "resources",
            "kernel",
            "kernel_source",
            "state",
            "container",
            "container_half",
            "half_child",
            "host_half",
            "log",
            "audit",
        ),
        *("loader", "failure", "conmon", "guard", "scratch", "whole", "lsm.__init__", "lsm.table"),
        *("lsm.host", "lsm.libbpf", "lsm.lists", "lsm.load", "lsm.proof", "lsm.refusals"),
        "lsm.release",
        "confine",
        *(
            "case",
            "policycache",
            "policyfile",
            "policysource",
            "policywatch",
            "yaml_places",
            "yaml_loader",
        ),
        *(
            "peer",
            "users",
            "client",
            "install_layout",
            "install_steps",
            "bytecode",
            "installed",
            "plan",
            "proposed",
            "images",
            "sharing",
        ),
        *("allowance", "owner", "arrivals", "listening", "subids", "waiting"),
        *("recording.breakpoint", "recording.files", "recording.notify", "recording.receiver"),
        *("recording.sandbox", "recording.session", "recording.supervisor", "recording.syscalls"),
        *("formats.__init__", "formats.advised", "formats.compose", "formats.container"),
        *("formats.containers", "formats.convert_from", "formats.convert_to"),
        *("formats.delegation", "formats.faults", "formats.json_places", "formats.kubernetes"),
        *("formats.oci", "formats.podman_run", "formats.quadlet", "formats.snippets"),
        *("formats.unitfile", "formats.yaml_documents"),
        *(
            "audited",
            "confinement",
            "delegations",
            "holders",
            "page",
            "probe_bpf",
            "probe_process",
            "probe_tracing",
            "libc",
            "processes",
            "running",
        ),
        *("doctor.container", "doctor.engines", "doctor.hooks", "doctor.host"),
        *(
            "doctor.around",
            "doctor.guarded",
            "doctor.objects",
            "doctor.programs",
            "doctor.selftest",
            "doctor.visit",
        ),
    ),
    # The entry points.
    (
        *(
            "hook",
            "hook_process",
            "asking",
            "precreate",
            "session",
            "broker",
            "cli",
            "__main__",
            "completion",
            "manual",
            "manualexamples",
            "manualtexts",
            "roff",
        ),
        *(
            "commands.__init__",
            "commands.advise",
            "commands.broker",
            "commands.cdi",
            "commands.check",
            "commands.convert",
        ),
        *("commands.delegate", "commands.doctor", "commands.inspect", "commands.target"),
        *(
            "commands.explain",
            "commands.guard",
            "commands.help",
            "commands.hook",
            "commands.inject",
            "commands.install",
            "commands.kernel",
        ),
        *(
            "commands.launcher",
            "commands.lint",
            "commands.output",
            "commands.policy",
            "commands.record",
            "commands.request",
        ),
        *(
            "commands.rules",
            "commands.seccomp",
            "commands.source",
            "commands.table",
            "commands.tree",
        ),
        *("commands.trial", "commands.uninstall"),
    ),
)
PURE_IMPORTS = {
    *(
        "_json",
        "_struct",
        "ast",
        "bisect",
        "collections.abc",
        "difflib",
        "errno",
        "functools",
        "json",
        "mmap",
        "re",
    ),
    *("struct", "typing"),
}
# The one module that reads ELF.
ELF_IMPORTS = {"elftools.construct", "elftools.elf.enums", "elftools.elf.structs"}


def _name(path: Path) -> str:
    """The module's name below the package: "masks", "commands.table"."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def _path(name: str) -> Path:
    return PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def _imports(path: Path) -> tuple[set[str], set[str]]:
    """The modules of ours that `path` imports, and the others."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                others.add(node.module or "")
                continue
            above = _name(path).split(".")[: -node.level]
            module = [*above, *(node.module.split(".") if node.module else [])]
            if module and _path(".".join(module)).exists():
                ours.add(".".join(module))
            else:
                # From the package itself: its modules, and the version that it holds.
                names = [a.name if a.name != "__version__" else "__init__" for a in node.names]
                ours |= {".".join([*module, name]) for name in names}
    return ours, others


def _row(name: str) -> int:
    (row,) = (number for number, names in enumerate(ROWS) if name in names)
    return row


def test_every_module_has_its_row() -> None:
    assert sorted(map(_name, PATHS)) == sorted(name for names in ROWS for name in names)


@pytest.mark.parametrize("path", PATHS, ids=_name)
def test_imports_go_upwards(path: Path) -> None:
    ours, _ = _imports(path)
    # What only a type checker imports is seen here too, and may come from the own row.
    assert {name for name in ours if _row(name) > _row(_name(path))} == set()


@pytest.mark.parametrize("name", ROWS[1])
def test_the_core_is_pure(name: str) -> None:
    _, others = _imports(_path(name))
    assert others <= PURE_IMPORTS | (ELF_IMPORTS if name == "advise.elf" else set())


def test_mmap_is_a_type_in_the_core() -> None:
    # btf names the type of its buffer; to map one is kernel's.
    for name in ROWS[1]:
        tree = ast.parse(_path(name).read_text())
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "mmap" not in " ".join(ast.unparse(node) for node in imports)
