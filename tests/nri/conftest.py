"""Pods' namespaces, and requests of real engines to create a container in them."""

from collections.abc import Iterator

import pytest

from tests.support.nri import Pod, nothing_left


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    """A pod of containerd's, whose first process runs."""
    with Pod() as found:
        yield found


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Whatever happens in a test, nothing of it is left."""
    yield
    assert nothing_left()
