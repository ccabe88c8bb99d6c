"""A place for a policy, where each change is taken for settled."""

from collections.abc import Iterator

import pytest

from oci_bpf_hook.policy.store import source
from tests.support.policyplace import Place, a_place


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    # The change time can't be set back, and so nothing here would ever be settled.
    monkeypatch.setattr(source, "SETTLED", -1)
    with a_place() as one:
        yield one
