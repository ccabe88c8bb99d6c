"""`oci-bpf-hook` as people call it, and what it prints as JSON.

It runs in this process, which is twenty times as fast; that it runs in one of its own is shown
where it is installed, and at terminals.
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

from oci_bpf_hook.cli.main import main
from tests.support.places import ROOT
from tests.support.policy import CACHE


class Done(NamedTuple):
    """What came of a command."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str | Path, stdin: str | bytes = "") -> Done:
    """Run the command with these arguments, whatever comes of it but an exception."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    before = sys.stdin
    with ExitStack() as stack:
        stack.callback(setattr, sys, "stdin", before)
        sys.stdin = io.TextIOWrapper(io.BytesIO(given))
        stack.enter_context(_closed())
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as error:  # argparse's way to say what is wrong with them.
            code = error.code if isinstance(error.code, int) else 1
    texts = []
    for stream in (out, err):
        stream.flush()
        buffer = stream.detach()
        assert isinstance(buffer, io.BytesIO)
        texts.append(buffer.getvalue().decode())
    return Done(code, *texts)


@contextmanager
def _closed() -> Iterator[None]:
    """Close the compiled policy, which a command leaves to the end of its process."""
    before = set(os.listdir("/proc/self/fd"))
    try:
        yield
    finally:
        for fd in set(os.listdir("/proc/self/fd")) - before:
            link = Path("/proc/self/fd", fd)
            if link.is_symlink() and os.readlink(link).startswith(str(CACHE)):
                os.close(int(fd))


def answer(name: str, *arguments: str | Path, stdin: str | bytes = "") -> tuple[int, Any]:
    """The exit code and the JSON of the command `name`, which is as its schema says."""
    done = command(name, "--json", *arguments, stdin=stdin)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    schema = json.loads((ROOT / "schema" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(found, schema)
    return done.returncode, found
