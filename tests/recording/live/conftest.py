"""That nothing is left of a recording."""

from collections.abc import Iterator

import pytest

from tests.support.scratch import bpf_mounts


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    before = bpf_mounts(), bpf_mounts(1)
    yield
    assert (bpf_mounts(), bpf_mounts(1)) == before
