"""struct_ops: functions by the members that they are for."""

import pytest

from oci_bpf_hook.advise import objects
from oci_bpf_hook.advise.structops import Operations
from tests.support.bpf import compiled


@pytest.mark.parametrize("by", ["clang", "clang-be"])
def test_flavours_and_shared_programs(by: str) -> None:
    programs = {
        "cong_avoid": "short_cong_avoid",
        "undo_cwnd": "short_undo_cwnd",
        "ssthresh": "short_ssthresh",
    }
    found = {one.name: one for one in objects.read(compiled("flavour", by=by), "").operations}
    assert found == {
        name: Operations(name, "tcp_congestion_ops", autocreate=True, programs=programs)
        for name in ("one", "two")
    }


def test_what_is_made_only_on_demand() -> None:
    (one,) = objects.read(compiled("choices"), "").operations
    assert (one.name, one.autocreate) == ("choice", False)
    assert one.programs == {"ssthresh": "choice_ssthresh"}


def test_without_any() -> None:
    assert objects.read(compiled("pinned"), "").operations == ()
