"""paths.py: what is ours on the host is named there, and nowhere else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook import paths

PACKAGE = Path(paths.PACKAGE)
OURS = re.compile(r"/(etc|run|var/log|sys/fs/bpf)/oci-bpf-hook\b")
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "paths.py")


def docstrings(tree: ast.Module) -> set[int]:
    """The nodes of docstrings, which are prose."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, owners))
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module, and the lines where they begin."""
    tree = ast.parse(path.read_text())
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_else_names_our_paths(path: Path) -> None:
    assert [line for line, text in strings(path) if OURS.search(text)] == []


def test_what_is_shipped_is_there() -> None:
    assert Path(paths.BUILTIN).is_file()
    assert Path(paths.PACKAGE, "policy.yaml").is_file()
    assert f"to: {paths.AUDIT_TO}\n" in Path(paths.PACKAGE, "policy.yaml").read_text()


def test_what_others_name_too() -> None:
    """The units, and what makes the directories, can't import anything."""
    units = PACKAGE.parent / "contrib" / "systemd"
    assert (
        f"ListenSequentialPacket={paths.SOCKET}\n"
        in (units / "oci-bpf-hook-broker.socket").read_text()
    )
