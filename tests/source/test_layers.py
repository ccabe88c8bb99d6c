"""The order of the folders, held by looking at what each module imports.

docs/how-it-works.md has the one table of the folders, in the order in which data flows: a module
imports from its own folder and from those above it in the table, and nowhere else.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "oci_bpf_hook"
TABLE = ROOT / "docs" / "how-it-works.md"
# The modules beside the folders, which everything may import.
TOP = "(top)"
_ROW = re.compile(r"\| (?P<folder>`[a-z_/]+/`|\(top\)) \| (?P<about>.*?) \|(?P<pure> pure)? *\|")

# What a module of a pure folder may import: nothing with files, clocks, processes or ctypes.
STANDARD = {
    *("_json", "_struct", "ast", "bisect", "collections.abc", "difflib", "errno", "functools"),
    *("json", "mmap", "re", "struct", "typing"),
}
# The one module that reads ELF, and those that read YAML.
LIBRARIES = {
    "advise.elf": {"elftools.construct", "elftools.elf.enums", "elftools.elf.structs"},
    "text.yaml_loader": {"yaml"},
    "text.yaml_places": {"yaml"},
}
# Of the modules beside the folders those without any of that.
PURE_TOP = {"errors", "paths", "similar", "values"}


def _name(path: Path) -> str:
    """The module's name below the package: "errors", "cli.commands.check"."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
# Whoever starts the package: what it imports is the command.
START = "__main__"


def _folder(name: str) -> str:
    """The folder of a module as the table has it: "cli/commands"."""
    return name.rpartition(".")[0].replace(".", "/") or TOP


def _rows() -> list[tuple[str, str, bool]]:
    """The table's rows: a folder, what it says of it, and whether it is pure."""
    found = [_ROW.fullmatch(line) for line in TABLE.read_text("utf-8").splitlines()]
    return [(row["folder"].strip("`/"), row["about"], bool(row["pure"])) for row in found if row]


ROWS = _rows()
ORDER = [folder for folder, _, _ in ROWS]
PURE = {folder for folder, _, pure in ROWS if pure}


def _imports(name: str) -> tuple[set[str], set[str]]:
    """The modules of ours that `name` imports, by whatever statement of it, and the others."""
    ours: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: -node.level]
            module = ".".join([*above, *((node.module or "").split(".") if node.module else [])])
            if module in MODULES:
                ours.add(module)
                continue
            for alias in node.names:
                one = f"{module}.{alias.name}" if module else alias.name
                # What isn't a module is a name of the package's own, its version.
                ours.add(one if one in MODULES else "__init__")
    return ours, others


IMPORTS = {name: _imports(name) for name in MODULES}


def _circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Every set of nodes that can reach each other along the arrows (Tarjan's algorithm)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_nodes: list[str] = []
    circles = []

    def visit(node: str) -> None:
        numbers[node] = lowest[node] = len(numbers)
        open_nodes.append(node)
        for target in arrows.get(node, ()):
            if target not in numbers:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in open_nodes:
                lowest[node] = min(lowest[node], numbers[target])
        if lowest[node] == numbers[node]:
            place = open_nodes.index(node)
            if len(circle := open_nodes[place:]) > 1:
                circles.append(sorted(circle))
            del open_nodes[place:]

    for node in arrows:
        if node not in numbers:
            visit(node)
    return circles


def test_circles_are_found() -> None:
    assert _circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [["b", "c"]]


def test_the_table_has_each_folder_once() -> None:
    assert sorted(ORDER) == sorted({_folder(name) for name in MODULES})


@pytest.mark.parametrize(("folder", "about"), [row[:2] for row in ROWS if row[0] != TOP])
def test_the_table_says_what_the_folder_says(folder: str, about: str) -> None:
    text = (PACKAGE / folder / "__init__.py").read_text("utf-8")
    # A docstring and nothing else: the loader makes these packages without running them.
    assert text == f'"""{about}"""\n'


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_upwards(name: str) -> None:
    # What only a type checker imports is seen here too.
    below = ORDER[ORDER.index(_folder(name)) + 1 :]
    assert name == START or {one for one in IMPORTS[name][0] if _folder(one) in below} == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert _circles({name: ours for name, (ours, _) in IMPORTS.items()}) == []


def test_no_folder_imports_itself_by_way_of_others() -> None:
    arrows: dict[str, set[str]] = {}
    for name, (ours, _) in IMPORTS.items():
        if name != START:
            arrows.setdefault(_folder(name), set()).update(map(_folder, ours))
    assert _circles({folder: found - {folder} for folder, found in arrows.items()}) == []


@pytest.mark.parametrize("name", [name for name in MODULES if _folder(name) in PURE])
def test_the_core_is_pure(name: str) -> None:
    ours, others = IMPORTS[name]
    assert others <= STANDARD | LIBRARIES.get(name, set())
    assert {one for one in ours if _folder(one) not in PURE} <= PURE_TOP


@pytest.mark.parametrize("name", sorted(PURE_TOP))
def test_what_the_core_takes_is_pure(name: str) -> None:
    ours, others = IMPORTS[name]
    assert others <= STANDARD
    assert ours <= PURE_TOP


def test_mmap_is_a_type_in_the_core() -> None:
    # bpf/btf.py names the type of its buffer; to map one is the kernel folder's.
    for name, path in MODULES.items():
        if _folder(name) in PURE:
            tree = ast.parse(path.read_text("utf-8"))
            imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            assert "mmap" not in " ".join(ast.unparse(node) for node in imports)


def test_the_modules_to_begin_with_are_there() -> None:
    """Whoever renames one of them renames it there as well."""
    tests = ROOT / "tests"
    there = {f"{path.parent.name}/{path.stem}" for path in tests.rglob("test_*.py")}
    assert set(LONGEST) <= there
    assert len(LONGEST) == len(set(LONGEST))
