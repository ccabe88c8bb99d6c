"""Whatever is on the command line: an answer or one sentence, and never a traceback."""

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci_bpf_hook.cli.main import main
from oci_bpf_hook.errors import BUG, DONE, EXITS, FOUND
from tests.support.scratch import Scratch

# As the kernel hands an argument over: any bytes but NUL.
WORDS = st.binary(max_size=40).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
NUMBERS = st.one_of(st.integers().map(str), st.sampled_from(["1", "2", "-1", "0", "\u0661"]))
OPTIONS = st.sampled_from(["--cmds", "--maps", "--progs", "--attachs", "--path", "--profile"])
FEW = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Where each example looks into every process of the host, and asks engines.
FEWER = settings(FEW, max_examples=20)


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as error:
        # argparse's own.
        code = int(error.code or 0)
    told = capsys.readouterr()
    # A bug is a line and a code too.
    assert code in EXITS.keys() - {BUG}, told.err
    assert "Traceback" not in told.err
    if code not in (DONE, FOUND):
        assert told.err.endswith("\n")
        assert all(line.isprintable() for line in told.err[:-1].split("\n"))


@FEW
@given(st.lists(st.tuples(OPTIONS, WORDS), max_size=4), st.booleans())
def test_delegate(
    capsys: pytest.CaptureFixture[str], options: list[tuple[str, str]], revoke: bool
) -> None:
    given_options = [f"{option}={text}" for option, text in options]
    with Scratch() as scratch:
        arguments = ["delegate", "--dry-run", f"--pid={scratch.init.pid}", *given_options]
        run([*arguments, *(["--revoke"] if revoke else [])], capsys)


@FEWER
@given(WORDS)
def test_names(capsys: pytest.CaptureFixture[str], text: str) -> None:
    run(["inspect", "--json", f"--html=/does/not/exist/{text}"], capsys)
    run(["inspect", f"--watch={text}x"], capsys)
    run(["doctor", f"--container={text}"], capsys)
    run(["doctor", "--pid=1", f"--object={text}"], capsys)
    run(["delegate", "--dry-run", f"--container={text}", "--cmds=any"], capsys)


@FEW
@given(NUMBERS)
def test_pids(capsys: pytest.CaptureFixture[str], number: str) -> None:
    run(["doctor", "--json", f"--pid={number}"], capsys)
    run(["delegate", "--dry-run", f"--pid={number}", "--cmds=any"], capsys)
