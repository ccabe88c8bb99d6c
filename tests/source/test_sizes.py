"""Sizes: a source has at most 400 lines, and a function of Python's at most 50."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.places import ROOT

LINES = 400
LINES_OF_FUNCTION = 50
FOLDERS = ("contrib", "hooks.d", "oci_bpf_hook", "tests")
# One program to read from its top to its end, since all that it holds depends on each line; and one
# that images get as a single file.
LONGER = {"oci_bpf_hook/guard/lsm/guard.bpf.c", "tests/probe/probe.c"}
C = {".c", ".h"}


def _sources() -> Iterator[Path]:
    """The files of C and Python, of which programs have no suffix."""
    for path in [
        *ROOT.glob("*.py"),
        *(one for name in FOLDERS for one in (ROOT / name).rglob("*")),
    ]:
        if path.suffix in {".py", *C}:
            yield path
        elif not path.suffix and path.is_file():
            with path.open("rb") as file:
                if b"python3" in file.readline():
                    yield path


SOURCES = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in _sources()}


def _functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Each function's name, its place, and its lines from `def` on, without decorators."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or 0) - node.lineno + 1


def test_lines_are_counted() -> None:
    text = """\
class A:
    @decorator(
        1)
    def f(self):
        async def g(): ...
        await g()
"""
    assert [*_functions(text)] == [("f", 4, 3), ("g", 5, 1)]


def test_all_sources_are_looked_at() -> None:
    assert SOURCES.keys() >= {
        *("contrib/generate-docs", "hooks.d/oci-bpf-hook", "oci_bpf_hook/hook/main.py"),
        *("setup.py", "tests/conftest.py", "tests/source/test_sizes.py"),
        *("tests/bench/floor.c", "tests/consumer/tcp_congestion.h"),
    }


def test_no_file_is_longer() -> None:
    lines = {name: len(text.splitlines()) for name, text in SOURCES.items()}
    assert {name for name, count in lines.items() if count > LINES} == LONGER


def test_no_function_is_longer() -> None:
    longer = [
        f"{path}:{line}: {name} has {count} lines"
        for path, text in SOURCES.items()
        if Path(path).suffix not in C
        for name, line, count in _functions(text)
        if count > LINES_OF_FUNCTION
    ]
    assert longer == []
