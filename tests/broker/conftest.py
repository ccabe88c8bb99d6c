"""The users, and a broker that has to leave nothing of what it served."""

from collections.abc import Iterator

import pytest

from tests.support.broker import Broker
from tests.support.users import users


@pytest.fixture(scope="module")
def everybody() -> Iterator[None]:
    with users():
        yield


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker(patient=True) as running:
        before = running.fds()
        yield running
        if running.process.poll() is None:
            running.quiet(before)
