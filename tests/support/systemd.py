"""Units as they are shipped: their settings, and what systemd makes of these."""

import subprocess
from functools import cache
from pathlib import Path

from tests.support.places import ROOT

UNITS = ROOT / "contrib" / "systemd"


def settings(unit: Path) -> dict[str, list[str]]:
    """All settings of a unit, each with every value that it is given."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def bounded(capabilities: list[str]) -> list[str]:
    """A command that runs another with no more than these capabilities."""
    names = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in capabilities)
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all{names}", "--"]


@cache
def group(name: str) -> frozenset[str]:
    """The system calls of one of systemd's groups."""
    found: set[str] = set()
    for line in run("systemd-analyze", "syscall-filter", name).splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= group(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return frozenset(found)


def allowed(unit: Path) -> set[str]:
    """What the unit's SystemCallFilter= allows."""
    # systemd adds this one to every list of what is allowed.
    found = set(group("@default"))
    for value in settings(unit)["SystemCallFilter"]:
        words = value.removeprefix("~").split()
        calls = {call for word in words for call in (group(word) if word[0] == "@" else {word})}
        found = found - calls if value.startswith("~") else found | calls
    return found
