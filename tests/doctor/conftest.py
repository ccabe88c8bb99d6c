"""A host of doctor's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from oci_bpf_hook.paths import SOCKET as BROKER
from tests.support.engines import make_work_directory, remove_work_directory
from tests.support.well import Host


@pytest.fixture
def host() -> Iterator[Host]:
    directory = make_work_directory()
    # A broker of another test's leaves its socket behind.
    Path(BROKER).unlink(missing_ok=True)
    yield Host(directory)
    remove_work_directory(directory)
