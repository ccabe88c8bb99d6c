"""The order of the modules, held by looking at what each imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "oci_bpf_hook"

# Rows of the design's table; a module imports from rows above its own and from its own.
ROWS = (
    ("__init__",),
    # The pure core: no os, no ctypes, no files, no clock.
    (
        *("errors", "record", "names", "annotations", "masks", "policy", "lint"),
        *("btf", "header", "table"),
    ),
    # The edge: the kernel and files.
    (
        *("syscalls", "kernel", "state", "container", "inside", "mount", "log", "audit", "trail"),
        *("policycache", "policyfile", "yamlfile"),
    ),
    # The entry points.
    ("hook", "policycommand", "cli", "__main__"),
)
PURE_IMPORTS = {"_struct", "ast", "collections.abc", "difflib", "json", "mmap", "re", "typing"}


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
            elif node.module:
                ours.add(node.module)
            else:
                ours |= {a.name if a.name != "__version__" else "__init__" for a in node.names}
    return ours, others


def _row(name: str) -> int:
    (row,) = (number for number, names in enumerate(ROWS) if name in names)
    return row


def test_every_module_has_its_row() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    assert modules == {name for names in ROWS for name in names}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_imports_go_upwards(path: Path) -> None:
    ours, _ = _imports(path)
    # What only a type checker imports is seen here too, and may come from the own row.
    assert {name for name in ours if _row(name) > _row(path.stem)} == set()


@pytest.mark.parametrize("name", ROWS[1])
def test_the_core_is_pure(name: str) -> None:
    _, others = _imports(PACKAGE / f"{name}.py")
    assert others <= PURE_IMPORTS


def test_mmap_is_a_type_in_the_core() -> None:
    # btf names the type of its buffer; to map one is kernel's.
    for name in ROWS[1]:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "mmap" not in " ".join(ast.unparse(node) for node in imports)
