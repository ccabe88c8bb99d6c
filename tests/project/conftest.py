"""The packages, built once for all workers, and a host on which to install them."""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import policy
from tests.support.packages import EPOCH, NEWER, flat_source, fresh, run, source_of
from tests.support.places import ROOT


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A directory `name` that `make` has filled, once in a session, whichever worker is the first.

    The others wait for it meanwhile.
    """
    base = factory.getbasetemp()
    # Each worker has a directory of its own in that of the session.
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    done = session / name
    with (session / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            directory = factory.mktemp(name)
            make(directory)
            directory.rename(done)
    return done


def _packages(directory: Path, tree: Path = ROOT, epoch: str | None = None) -> None:
    run("make", "deb", "rpm", f"OUTPUT={directory}", cwd=tree, epoch=epoch)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both packages, as make leaves them."""
    return once(tmp_path_factory, "an output", lambda output: _packages(output, epoch=EPOCH))


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both packages of another version."""
    return once(
        tmp_path_factory, "newer", lambda output: _packages(output, source_of(NEWER, output))
    )


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both packages as they were when all modules lay in one folder."""
    return once(
        tmp_path_factory, "flat", lambda output: _packages(output, flat_source("0.0.1", output))
    )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A host without the hook; the directory is what written() looks into."""
    with fresh(tmp_path):
        # Its rules are the built-in policy's, but for the guard: that takes BPF LSM.
        policy.write(policy.UNCONFINED)
        yield tmp_path
