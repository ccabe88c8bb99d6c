"""`oci-bpf-hook record` as people call it, and programs whose calls are known."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.places import ROOT

from .engines import require, run

_SOURCE: Final = ROOT / "tests" / "recorded" / "calls.c"


class Recorded(NamedTuple):
    """How the command ended, what it wrote, the needs as text, and the recording's JSON."""

    code: int
    stdout: str
    stderr: str
    needed: str
    recording: dict[str, Any]

    def counts(self, cmd: str = "map_create") -> dict[str | None, int]:
        """How often that command was called, by its result."""
        found: dict[str | None, int] = {}
        for one in self.recording["calls"]:
            if one["cmd"] == cmd:
                found[one["result"]] = found.get(one["result"], 0) + one["count"]
        return found


def argv(*arguments: str) -> list[str]:
    """`oci-bpf-hook` with these arguments, from the checkout and wherever it is called."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from oci_bpf_hook.cli.main import main; "
    )
    return [sys.executable, "-c", f"{code}sys.exit(main())", *arguments]


def command(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run it, and wait for its end."""
    return subprocess.run(
        argv(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, **(env or {})},
    )


def record(
    *program: str,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    stdin: str = "",
) -> Recorded:
    """Record `program`, with these options of record."""
    with tempfile.TemporaryDirectory(prefix="recorder-", dir="/tmp") as directory:
        save, output = f"{directory}/recording.json", f"{directory}/needed"
        if "--save" in options:
            save = options[options.index("--save") + 1]
        done = command(
            *("record", "--save", save, "--output", output, *options, "--", *program),
            env=env,
            stdin=stdin,
        )
        needed = Path(output).read_text() if os.path.exists(output) else ""
        saved = json.loads(Path(save).read_text()) if os.path.exists(save) else {}
    return Recorded(done.returncode, done.stdout, done.stderr, needed, saved)


@functools.cache
def calls() -> str:
    """The program of tests/recorded, compiled once a session."""
    directory = tempfile.mkdtemp(prefix="recorded-", dir="/tmp")
    atexit.register(shutil.rmtree, directory)
    os.chmod(directory, 0o755)
    program = f"{directory}/calls"
    flags = ("-O1", "-Wall", "-Wextra", "-Werror", "-pthread")
    require(run(["cc", *flags, "-o", program, str(_SOURCE)]))
    return program
