"""audited.py: what is read back of an audit trail, whatever is in the file."""

import json
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci_bpf_hook.audited import entries, grants, last_refusal
from tests.support.policy import AUDIT, CACHE, in_force
from tests.support.scratch import Scratch, io

ASKED = io(delegate_cmds="map_create", delegate_maps="hash")


def test_a_grant_and_a_refusal() -> None:
    with Scratch() as scratch:
        assert scratch.hook(ASKED, id="granted-one").returncode == 0
        with in_force("version: 1\nrules: []\n"):
            assert scratch.hook(ASKED, id="refused-one").returncode == 12
    assert grants()["granted-one", 0].rule == "everything"
    assert last_refusal("granted-one") is None
    refusal = last_refusal("refused-one")
    assert refusal is not None
    assert "no rule of the policy" in refusal["problems"][0]
    # An id's beginning will do; the last line about it counts.
    assert last_refusal("refused-") == refusal


def test_no_file_stays_open() -> None:
    """inspect --watch asks again and again, and may go on for weeks."""
    with in_force(None):
        for _ in range(2):
            list(entries())
        assert CACHE.exists()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            list(entries())
        assert len(os.listdir("/proc/self/fd")) == before


def test_rotated_away() -> None:
    with Scratch() as scratch:
        assert scratch.hook(ASKED, id="rotated").returncode == 0
    old = AUDIT.with_name(f"{AUDIT.name}.1")
    AUDIT.rename(old)
    try:
        assert grants()["rotated", 0].rule == "everything"
    finally:
        old.rename(AUDIT)


def test_no_file_is_named() -> None:
    for where in ("syslog", "none", "/does/not/exist"):
        with in_force(f"version: 1\naudit: {{to: {where}, required: false}}\nrules: []\n"):
            assert list(entries()) == []


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.binary(),
            st.builds(
                lambda value: json.dumps(value).encode(),
                st.dictionaries(
                    st.sampled_from(
                        ["container", "outcome", "rule", "requester", "granted", "requested"]
                    ),
                    st.sampled_from(
                        ["granted", "refused", 1, None, [], {}, {"container": 1, "user": 0}]
                    ),
                ),
            ),
        )
    )
)
def test_any_file(lines: list[bytes]) -> None:
    AUDIT.parent.mkdir(exist_ok=True)
    before = AUDIT.read_bytes() if AUDIT.exists() else b""
    AUDIT.write_bytes(b"\n".join(lines))
    try:
        grants()
        last_refusal("granted")
    finally:
        AUDIT.write_bytes(before)
