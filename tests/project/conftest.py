"""The packages, built once, and a host on which to install them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import policy
from tests.support.packages import EPOCH, NEWER, flat_source, fresh, run, source_of


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both packages, as make leaves them."""
    output = tmp_path_factory.mktemp("an output")
    run("make", "deb", "rpm", f"OUTPUT={output}", epoch=EPOCH)
    return output


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both packages of another version."""
    directory = tmp_path_factory.mktemp("newer")
    tree = source_of(NEWER, directory)
    run("make", "deb", "rpm", f"OUTPUT={directory}", cwd=tree)
    return directory


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both packages as they were when all modules lay in one folder."""
    directory = tmp_path_factory.mktemp("flat")
    run("make", "deb", "rpm", f"OUTPUT={directory}", cwd=flat_source("0.0.1", directory))
    return directory


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """A host without the hook; the directory is what written() looks into."""
    with fresh(tmp_path):
        # Its rules are the built-in policy's, but for the guard: that takes BPF LSM.
        policy.write(policy.UNCONFINED)
        yield tmp_path
