"""Nothing parses a sentence of ours: what it says has fields, and the words may change any day.

Held as far as looking at the source can hold it.  mypy does more: a Problem is no text.
tests/cli/commands/test_places.py does the rest: if every sentence is replaced the commands answer
the same.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGE = ROOT / "oci_bpf_hook"
# Two words of English, or what is between the halves of a sentence.
_PHRASE = re.compile(r"[a-z']{2,} [a-z]{2,}|; ")
# What takes a text apart, or looks into it.
_LOOKS = {
    *("startswith", "endswith", "find", "rfind", "index", "rindex", "count"),
    *("partition", "rpartition", "split", "rsplit", "splitlines"),
    *("removeprefix", "removesuffix", "replace", "translate"),
}
_RE = {"match", "fullmatch", "search", "split", "sub", "findall", "finditer"}
# What holds sentences of ours, in records and in the commands' JSON.
_SENTENCES = {"doubts", "findings", "hint", "obstacles", "problems", "sentences", "warnings"}
# Of a record, the fields that are its key and not its sentence.
_FIELDS = {"code", "column", "fix", "item", "key", "level", "line", "lint", "names", "option"}


class _Look:
    """A place that looks into a text: the text, and the words that it looks for."""

    def __init__(self, line: int, text: ast.expr, words: ast.expr | None) -> None:
        self.line = line
        self.text = text
        self.words = words


def _looks(tree: ast.AST) -> Iterator[_Look]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, operation, right in zip(sides, node.ops, sides[1:], strict=False):
                if isinstance(operation, ast.In | ast.NotIn):
                    yield _Look(node.lineno, right, left)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = node.args[0] if node.args else None
            if node.func.attr in _RE and _name(node.func.value) == "re" and len(node.args) > 1:
                yield _Look(node.lineno, node.args[1], words)
            elif node.func.attr in _RE - {"split"} and words is not None:
                # A pattern that was compiled before.
                yield _Look(node.lineno, words, None)
            if node.func.attr in _LOOKS:
                yield _Look(node.lineno, node.func.value, words)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_phrase(node: ast.expr | None) -> bool:
    """Whether words to look for are a constant that is no single word."""
    return any(
        isinstance(part, ast.Constant)
        and isinstance(part.value, str)
        and _PHRASE.search(part.value) is not None
        for part in ([] if node is None else ast.walk(node))
    )


def _is_collection(node: ast.expr) -> bool:
    return isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict)


class _Function:
    """Which names of a function hold our sentences: errors, and what is made of them."""

    def __init__(self, function: ast.AST) -> None:
        self.texts: set[str] = set()
        handlers = [one for one in ast.walk(function) if isinstance(one, ast.ExceptHandler)]
        # A name that is others' too is looked at in each `except` for itself.
        others = {one.name for one in handlers if not _is_ours(one.type)}
        self.errors = {one.name for one in handlers if one.name} - others
        # A name may be used above what makes it, in a loop.
        size = -1
        while size != len(self.texts):
            size = len(self.texts)
            for node in ast.walk(function):
                self._bind(node)

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.For | ast.comprehension):
            targets, value = [node.target], node.iter
        else:
            return
        if self.is_text(value):
            for target in targets:
                self.texts |= {_name(one) for one in ast.walk(target) if isinstance(one, ast.Name)}

    def is_text(self, node: ast.expr) -> bool:
        """Whether this is a sentence of ours, or has some."""
        if isinstance(node, ast.Name):
            return node.id in self.texts
        if isinstance(node, ast.Attribute):
            if node.attr in _FIELDS:
                return False
            return node.attr in _SENTENCES or self.is_text(node.value)
        if isinstance(node, ast.Subscript):
            at = node.slice
            return self.is_text(node.value) or (
                isinstance(at, ast.Constant) and at.value in _SENTENCES
            )
        if isinstance(node, ast.Call):
            return self._is_told(node)
        if isinstance(node, ast.BoolOp):
            return any(map(self.is_text, node.values))
        if isinstance(node, ast.FormattedValue | ast.Starred):
            return self.is_text(node.value) or _name(node.value) in self.errors
        if isinstance(node, ast.JoinedStr | ast.Tuple | ast.List):
            parts = node.values if isinstance(node, ast.JoinedStr) else node.elts
            return any(map(self.is_text, parts))
        return False

    def _is_told(self, call: ast.Call) -> bool:
        """str(error), and what is called on or with sentences to have others."""
        if _name(call.func) in ("str", "quote"):
            return any(_name(one) in self.errors or self.is_text(one) for one in call.args)
        if _name(call.func) in ("map", "sorted", "list", "tuple", "filter", "enumerate"):
            return any(map(self.is_text, call.args))
        return isinstance(call.func, ast.Attribute) and (
            call.func.attr in ("lower", "strip", "join", "keys")
            and (self.is_text(call.func.value) or any(map(self.is_text, call.args)))
        )


def _is_ours(kind: ast.expr | None) -> bool:
    """Whether an `except` may be about an error of ours.

    The kernel's words are in an OSError, and a library's in what is named with its module.
    """
    return kind is not None and not isinstance(kind, ast.Attribute) and _name(kind) != "OSError"


def _functions(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ExceptHandler):
            yield node
    # What runs at import.
    yield ast.Module(
        body=[one for one in tree.body if not isinstance(one, ast.FunctionDef | ast.ClassDef)],
        type_ignores=[],
    )


def parsed(source: str) -> list[int]:
    """The lines of `source` that look into a sentence of ours."""
    tree = ast.parse(source)
    found = {
        look.line
        for look in _looks(tree)
        if _is_phrase(look.words) and not _is_collection(look.text)
    }
    for function in _functions(tree):
        known = _Function(function)
        found |= {look.line for look in _looks(function) if known.is_text(look.text)}
    return sorted(found)


# What has been done here, and the like of it.
PARSED = (
    'if "the path" in text or "target directory" in text: pass',
    'hint = text.startswith("to allow it")',
    'found = [text.partition("; ") for text in load.obstacles()]',
    'codes = [sentence.partition(":")[0] for sentence in one.warnings]',
    'first = answer["problems"][0].split()[0]',
    """
try:
    judge()
except HookError as error:
    if "trusted" in str(error): pass
""",
    """
def key(error):
    for one in error.problems:
        text = str(one)
        if named := re.search(r"(\\w+)", text): return named
""",
    """
def words(error):
    said = "; ".join(error.sentences)
    return "prog_load" in said
""",
    """
try:
    judge()
except HookError as error:
    raise HookError(error.code, f"{error}".replace("a", "b"))
""",
    "def is_known(one): return [name for name in NAMES if name in one.problems[0].text]",
    "def hinted(error): return error.hint.lower().endswith(NAME)",
)
NOT_PARSED = (
    "def listed(key): return key in ('what is', 'not a sentence')",
    "def of(one): return one.problems[0].key in KEYS",
    "def of(error): return [one.item.strip() for one in error.problems if one.key == 'path']",
    "def of(error): return '; '.join(error.sentences[:20])",
    "def of(line): return line.partition(' - ')",
    """
try:
    read()
except yaml.YAMLError as error:
    raise HookError(USAGE, " ".join(str(error).split()))
""",
    """
try:
    read()
except OSError as error:
    raise HookError(USAGE, f"{error.strerror}")
""",
)


@pytest.mark.parametrize("source", PARSED)
def test_it_is_seen(source: str) -> None:
    assert len(parsed(source)) == 1


@pytest.mark.parametrize("source", NOT_PARSED)
def test_what_is_none(source: str) -> None:
    assert parsed(source) == []


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_nothing_parses_our_sentences(path: Path) -> None:
    source = path.read_text()
    lines = source.split("\n")
    assert [lines[number - 1].strip() for number in parsed(source)] == []
