"""doctor about subordinate ids: what podman asks for them says, and not only what is in files."""

import pytest

from tests.support.situation import not_well
from tests.support.well import Host, causes

# What getsubids of shadow 4.20.3 says (Debian sid, November 2026) of a name that isn't a user's.
REFUSES = """#!/bin/sh
echo "Error fetching ranges" >&2
exit 1
"""
GETSUBIDS = "/usr/bin/getsubids"
CONTAINERS = "containers:x:899:899::/nonexistent:/usr/sbin/nologin\n"


@pytest.mark.parametrize("name", ["/etc/subuid", "/etc/subgid"])
def test_a_range_for_nobody(host: Host, name: str) -> None:
    """Where libsubid refuses a name that isn't a user's, the line in the file isn't enough."""
    host.files[GETSUBIDS] = REFUSES
    host.programs.add(GETSUBIDS)
    found = host.doctor()
    assert causes(found) == {"subuid"}
    assert "there is no such user" in not_well(found)["subuid"]["why"]
    fix = not_well(found)["subuid"]["fix"]
    assert fix.startswith("useradd --system ")
    assert fix.endswith(" containers")
    # If the line isn't there either, the two of them are what is to be done.
    host.files[name] = ""
    fixes = not_well(host.doctor())["subuid"]["fix"].split("; ")
    assert fixes == [fix, f"echo containers:2147483647:2147483648 >> {name}"]


def test_a_range_that_the_library_doesn_t_find(host: Host) -> None:
    """There is such a user, and nsswitch.conf has libsubid look elsewhere."""
    host.files[GETSUBIDS] = REFUSES
    host.programs.add(GETSUBIDS)
    host.files["/etc/passwd"] += CONTAINERS
    found = host.doctor()
    assert causes(found) == {"subuid"}
    assert "nsswitch.conf" in not_well(found)["subuid"]["why"]


def test_a_range_that_the_library_alone_has(host: Host) -> None:
    """As of a directory service: what isn't in the files is podman's all the same."""
    host.files |= dict.fromkeys(("/etc/subuid", "/etc/subgid"), "")
    host.files[GETSUBIDS] = '#!/bin/sh\necho "0: containers 2147483648 2147483647"\n'
    host.programs.add(GETSUBIDS)
    assert causes(host.doctor()) == set()


def test_a_podman_that_reads_the_files_itself(host: Host) -> None:
    """Its builds without libsubid compare names, and no library's refusal matters to them."""
    host.files[GETSUBIDS] = REFUSES
    host.files["/usr/bin/podman"] = "#!/bin/sh\necho podman version 5.8.6\n"
    host.programs |= {GETSUBIDS, "/usr/bin/podman"}
    assert causes(host.doctor()) == set()
