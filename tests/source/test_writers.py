"""Which modules write files, by looking at them: the one that is for it, and few others."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGE = ROOT / "oci_bpf_hook"
SCRIPTS = (
    "contrib/compile-builtin-policy",
    "contrib/generate-docs",
    "contrib/update-bpf-enums",
    "hooks.d/oci-bpf-hook",
)
# What writes otherwise, and why that will do: a line of the audit trail is added to what is there;
# a lock has no content, and a count of root's own is changed in its place; /proc has no names to be
# planted; /dev/null takes what a closed stream would; a socket is bound to a name that is renamed,
# and so are the guard's directories in a bpffs.  The file that the NRI plugin locks has no content.
OTHERWISE = {
    *("audit.allowance", "audit.write", "broker.listening", "cli.main", "guard.lsm.load"),
    *("mount.scratch", "nri.place", "policy.store.source", "recording.live.sandbox", "whole"),
}
FLAGS = {"O_CREAT", "O_TRUNC", "O_APPEND"}
CALLS = {"write_text", "write_bytes", "rename", "mkstemp", "NamedTemporaryFile", "symlink"}
COPIES = {"copy", "copy2", "copyfile", "copytree", "move"}


def writes(tree: ast.AST) -> Iterator[str]:
    """Where files are written, by how it is spelt."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from FLAGS & {node.attr}
        elif isinstance(node, ast.Call):
            yield from _written_by(node)


def _written_by(call: ast.Call) -> Iterator[str]:
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    of = getattr(function, "value", None)
    module = of.id if isinstance(of, ast.Name) else ""
    yield from CALLS & {name}
    # Of a str it takes two arguments.
    if name == "replace" and (module in ("os", "posix") or len(call.args) == 1):
        yield name
    if module == "shutil":
        yield from COPIES & {name}
    modes = (*call.args, *(one.value for one in call.keywords if one.arg == "mode"))
    texts = [one.value for one in modes if isinstance(one, ast.Constant)]
    # An fd has been opened already.
    by_fd = bool(call.args) and isinstance(call.args[0], ast.Name) and call.args[0].id == "fd"
    if name == "open" and not by_fd:
        yield from (one for one in texts if isinstance(one, str) and _is_mode(one))


def _is_mode(text: str) -> bool:
    return set(text) <= set("rwxabt+") and not set(text).isdisjoint("wxa+")


def _name(path: Path) -> str:
    if not path.is_relative_to(PACKAGE):
        return path.name
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def test_nothing_else_writes_files() -> None:
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / name for name in SCRIPTS)]
    found = {_name(path) for path in paths if list(writes(ast.parse(path.read_text())))}
    assert found == OTHERWISE


@pytest.mark.parametrize(
    "text",
    [
        *("open(a, 'w')", "open(a, mode='x')", "Path(a).open('wb')", "open(a, 'r+b')"),
        *("a.write_text(b)", "a.write_bytes(b)", "a.rename(b)", "a.replace(b)", "os.replace(a, b)"),
        *("posix.open(a, posix.O_CREAT)", "tempfile.mkstemp()", "shutil.copyfile(a, b)"),
    ],
)
def test_that_is_seen(text: str) -> None:
    assert list(writes(ast.parse(text)))


@pytest.mark.parametrize("text", ["open(a)", "open(a, 'rb')", "text.replace(a, b)", "a.copy()"])
def test_that_is_no_write(text: str) -> None:
    assert not list(writes(ast.parse(text)))
