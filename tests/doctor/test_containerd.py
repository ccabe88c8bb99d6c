"""doctor about containerd: what it makes of its configuration, by its own words."""

from shlex import quote

import pytest

from oci_bpf_hook.install.containerd import DROP_IN
from tests.support.places import ROOT
from tests.support.situation import not_well
from tests.support.well import Host, causes

CONTAINERD = "/usr/bin/containerd"


def has_containerd(host: Host, recorded: str) -> None:
    """containerd 2.1.9, as recorded (tests/data/containerd/record)."""
    data = ROOT / "tests" / "data" / "containerd"
    errors = data / f"{recorded}.err"
    host.files[CONTAINERD] = (
        "#!/bin/sh\n[ $1 = config ] || exec echo containerd 2.1.9+ds1\n"
        f"cat {quote(f'{data / recorded}.toml')}\n"
        f"{f'cat {quote(str(errors))} >&2' if errors.exists() else ''}\n"
    )
    host.programs.add(CONTAINERD)
    if recorded != "alone":
        host.files[DROP_IN] = f"version = {recorded[-1]}\n"


@pytest.mark.parametrize("recorded", ["alone", "2-imports-2", "3-imports-3"])
def test_a_containerd_whose_files_have_one_version(host: Host, recorded: str) -> None:
    has_containerd(host, recorded)
    found = host.doctor()
    assert causes(found) == set()
    said = [one["why"] for one in found if one["what"] == "containerd-config"]
    assert said == ["pods with the runtime bpf can ask by annotations"] * (recorded != "alone")


def test_a_containerd_that_ignores_what_its_host_says_of_cri(host: Host) -> None:
    has_containerd(host, "2-imports-3")
    found = host.doctor()
    assert causes(found) == {"containerd-config"}
    wrong = not_well(found)["containerd-config"]
    assert "(containerd, containerd runtimes, containerd runtimes runc, " in wrong["why"]
    assert wrong["fix"].startswith("oci-bpf-hook install --engine containerd && ")
    # It may be somebody else's drop-in.
    del host.files[DROP_IN]
    assert "| grep Ignoring" in not_well(host.doctor())["containerd-config"]["fix"]


def test_a_containerd_that_ignores_the_drop_in(host: Host) -> None:
    has_containerd(host, "3-imports-2")
    found = host.doctor()
    assert causes(found) == {"containerd-config"}
    assert not_well(found)["containerd-config"]["state"] == "warning"
