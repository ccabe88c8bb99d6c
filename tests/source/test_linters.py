"""The linters, as tests: a tool that is missing here fails like a finding."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

SHELL = sorted(
    path
    for folder in (".ci", "contrib", "hooks.d", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.read_bytes()[:9] in (b"#!/bin/sh", b"#!/bin/ba")
)


def _run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy() -> None:
    _run(sys.executable, "-m", "mypy")


def test_ruff() -> None:
    _run(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_format() -> None:
    _run(sys.executable, "-m", "ruff", "format", "--check", ".")


@pytest.mark.parametrize("path", SHELL, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck(path: Path) -> None:
    _run("shellcheck", str(path))


def test_there_is_shell_to_check() -> None:
    assert SHELL
