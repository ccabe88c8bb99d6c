"""Whether needs are enough and needed: here with runs that are made up.

That real programs are run again is test_command_record's.
"""

from collections.abc import Mapping

from oci_bpf_hook.recording.learn import learn
from oci_bpf_hook.recording.recording import Recording
from oci_bpf_hook.recording.verify import changed, enough, verdicts
from tests.recording.test_learn import ENUMS, EXP_ATTACH, XDP, recording

HASH = {"cmd": "map_create", "map_type": "hash"}


def test_verdicts() -> None:
    first = recording(HASH)
    first.exit = 0
    needs = learn(first, ENUMS)
    asked: list[dict[str, int]] = []

    def run(masks: Mapping[str, int]) -> Recording:
        asked.append(dict(masks))
        again = recording(*([HASH] if masks.get("delegate_maps") else []))
        again.exit = 0 if masks.get("delegate_maps") else 3
        return again

    assert enough(first, needs, run, ENUMS) == ""
    assert asked == [needs.masks(ENUMS)]
    found = {verdict.name: verdict.why for verdict in verdicts(first, needs, run, ENUMS)}
    assert found == {
        "map_create": "",
        "hash": "it exits with 3 instead of 0 and it doesn't get map_create hash",
    }
    assert asked[1:] == [{"delegate_maps": 2}, {"delegate_cmds": 1}]


def test_more_is_no_change() -> None:
    assert changed(recording(HASH), recording(HASH, XDP), ENUMS) == ""
    assert changed(recording(HASH, XDP), recording(HASH), ENUMS) == "it doesn't get prog_load xdp"


def test_an_optional_attach_type_may_go() -> None:
    zero = {**XDP, "attach_type": "cgroup_inet_ingress", "optional": False}
    assert changed(recording(EXP_ATTACH, XDP), recording(zero), ENUMS) == ""
    fixed = {**XDP, "optional": False}
    assert changed(recording(fixed), recording(zero), ENUMS) == "it doesn't get prog_load xdp xdp"


def test_btf_shows_in_what_has_it() -> None:
    described = {**HASH, "btf": True}
    btf = {"cmd": "btf_load"}
    assert changed(recording(btf, HASH), recording(HASH), ENUMS) == ""
    assert changed(recording(btf, described), recording(HASH), ENUMS) == (
        "it doesn't get map_create hash with BTF"
    )
