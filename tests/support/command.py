"""`oci-bpf-hook` as people call it, and what it prints as JSON."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema

ROOT = Path(__file__).parents[2]


def command(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command with these arguments, whatever comes of it but a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "oci_bpf_hook", *map(str, arguments)],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def answer(name: str, *arguments: str | Path, stdin: str = "") -> tuple[int, Any]:
    """The exit code and the JSON of the command `name`, which is as its schema says."""
    done = command(name, "--json", *arguments, stdin=stdin)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    schema = json.loads((ROOT / "schema" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    return done.returncode, found
