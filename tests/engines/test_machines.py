"""The product on Debian's kernels, each in a machine that runs all its cases in one boot."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.machines.files import FILES
from tests.machines.initramfs import build
from tests.machines.inside.cases import cases, modules
from tests.machines.kernels import SUITES, Kernel, kernels
from tests.machines.machine import QEMU, Machine, Report

MACHINE = os.uname().machine
pytestmark = pytest.mark.skipif(
    MACHINE != "x86_64", reason=f"the machines are x86_64, and this host is {MACHINE}"
)
CASES = [
    pytest.param(suite, case, id=f"{suite}-{case}")
    for suite in SUITES
    for module in modules()
    for case in cases(module, suite)
]


@pytest.fixture(scope="module")
def found() -> dict[str, Kernel]:
    return kernels()


@pytest.fixture(scope="module")
def initramfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("machines") / "initramfs"
    path.write_bytes(build(modules(), {name: make() for name, make in FILES.items()}))
    return path


@pytest.fixture(scope="module")
def reports(
    request: pytest.FixtureRequest, found: dict[str, Kernel], initramfs: Path
) -> dict[str, Report]:
    """What the machines have said, of the suites that the tests chosen are about.

    Each takes a processor, and one is left to the other tests; none goes by the host's clock.
    """
    chosen = [item.name for item in request.session.items if item.path == request.path]
    wanted = [suite for suite in SUITES if any(f"[{suite}" in name for name in chosen)]
    with ThreadPoolExecutor(max((os.cpu_count() or 1) - 1, 1)) as pool:
        runs = {
            suite: pool.submit(Machine(found[suite]).run, initramfs, modules()) for suite in wanted
        }
    return {suite: run.result() for suite, run in runs.items()}


@pytest.mark.parametrize(("suite", "case"), CASES)
def test_case(reports: dict[str, Report], suite: str, case: str) -> None:
    said = reports[suite]
    result = said.results[case]
    why = result.detail or f"{result.outcome}; the console's end:\n{said.tail()}"
    assert result.outcome == "passed", why


@pytest.mark.parametrize("suite", SUITES)
def test_the_kernel_is_the_suites_and_stays_well(
    reports: dict[str, Report], found: dict[str, Kernel], suite: str
) -> None:
    said = reports[suite]
    assert said.results["kernel.release"].value == found[suite].release
    assert said.tainted == 0, said.tail()


def test_what_goes_wrong_in_a_machine_is_reported(
    found: dict[str, Kernel], initramfs: Path
) -> None:
    said = Machine(found["bookworm"]._replace(suite="faulty")).run(initramfs, ["faults"])
    outcomes = {name: said.results[f"faults.{name}"].outcome for name in ("raises", "panics")}
    assert outcomes == {"raises": "failed", "panics": "unfinished"}
    detail = said.results["faults.raises"].detail
    assert f"ValueError: on {found['bookworm'].release}" in detail
    assert said.results["faults.is_after_that"].outcome == "missing"
    assert said.tainted is None
    assert "sysrq" in said.tail()


def test_a_machine_that_takes_too_long_is_ended(found: dict[str, Kernel], initramfs: Path) -> None:
    said = Machine(found["trixie"]).run(initramfs, ["kernel"], limit=0.5)
    assert said.results["kernel.release"].outcome == "missing"
    assert f"{QEMU} was ended: it still ran after 0.5 seconds" in said.tail()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
