"""The command as it is installed: its answer to --help, and to a question."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from .launcher import BARE, ENVIRONMENT, REQUEST
from .samples import Candidate, Group, measure, milliseconds

_HELP_BUDGET: Final = 3.0


def command(directory: Path, *, rounds: int) -> Group:
    """The time of the command, installed below `directory`."""
    top = directory / "installed"
    install = [sys.executable, "-m", "oci_bpf_hook", "install", "--destdir", str(top)]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    program = str(top / "usr/bin/oci-bpf-hook")
    annotations = [f"--annotation={key}={value}" for key, value in REQUEST.items()]

    def candidate(
        name: str, label: str, argv: Sequence[str], budget: float | None = None
    ) -> Candidate:
        def run() -> float:
            return milliseconds(argv, stdin=b"", env=ENVIRONMENT)

        return Candidate(name=name, label=label, prepare=lambda _: run, budget=budget)

    return measure(
        "command",
        "The command",
        [
            candidate("bare", "the bare interpreter", BARE),
            candidate("help", "oci-bpf-hook --help", [program, "--help"], _HELP_BUDGET),
            candidate("check", "oci-bpf-hook check", [program, "check", *annotations]),
        ],
        rounds=rounds,
    )
