"""delegations.py: which real containers have one, and what is said of it."""

import os
from pathlib import Path

from oci_bpf_hook.audit.read import Granted
from oci_bpf_hook.bpf.names import KINDS
from oci_bpf_hook.kernel import enums as kernel
from oci_bpf_hook.running.containers import Running, of_process
from oci_bpf_hook.running.delegations import Delegation, delegations, of_container
from tests.support.policy import audited
from tests.support.scratch import FIRST_ID, Scratch, io
from tests.support.situation import BPFFS, SOCKET, delegate, findings, masks, not_well, workload
from tests.support.users import BOB, appended, users

ENUMS = kernel.enums(KINDS)


def of(pid: int) -> list[Delegation]:
    user = os.stat(f"/proc/{pid}/ns/user").st_ino
    return [one for one in delegations(ENUMS) if one.user_namespace == user]


def test_what_is_delegated() -> None:
    with workload() as (pid, _):
        (one,) = of(pid)
        assert (one.path, one.shown, one.masks) == (BPFFS, SOCKET, masks(SOCKET))
        assert (one.owner, one.owner_name, one.covered) == (0, "root", False)
        assert one.rule is None
        # Nobody has marked it, and so nothing confines what its programs call.
        assert one.confined is False
        assert [notice.code for notice in one.warnings] == ["reaches-beyond"]


def test_a_copy_of_its_mounts_is_no_other_delegation() -> None:
    with workload("unshare", "--mount") as (pid, scratch):
        assert os.stat(f"/proc/{pid}/ns/mnt") != os.stat(f"/proc/{scratch.init.pid}/ns/mnt")
        assert len(of(pid)) == 1


def test_one_over_another() -> None:
    with workload() as (pid, _):
        delegate(pid, {**SOCKET, "delegate_maps": "array"})
        below, above = of(pid)
        assert (below.covered, above.covered) == (True, False)
        assert above.shown["delegate_maps"] == "array"


def test_the_rule_by_the_audit_trail() -> None:
    with Scratch() as scratch:
        # As podman's, the id is in the cgroup's name; here the trail's is the process's.
        assert scratch.hook(io(**SOCKET), id=f"pid-{scratch.init.pid}").returncode == 0
        (one,) = of(scratch.init.pid)
        assert one.rule == "everything"


def test_the_rule_of_another_user_s_with_that_id() -> None:
    """Who asks a broker says for which container."""
    with Scratch() as scratch:
        identity = f"pid-{scratch.init.pid}"
        delegate(scratch.init.pid, SOCKET)
        one = of_process(scratch.init.pid)
        known = {(identity, 61997): Granted(rule="theirs", shown={}, path=BPFFS, time=0)}
        (theirs,) = of_container(one, ENUMS, known)
        known[identity, 0] = Granted(rule="ours", shown={}, path=BPFFS, time=0)
        (ours,) = of_container(one, ENUMS, known)
    assert (theirs.rule, ours.rule) == (None, "ours")


def test_the_rule_for_one_with_a_user_s_ids() -> None:
    """root's hook has given it; that the user may be behind it, whose ids they are, is said."""
    with users(), appended(Path("/etc/subuid"), [f"{BOB.name}:{FIRST_ID}:65536"]):
        with Scratch() as scratch:
            identity = f"pid-{scratch.init.pid}"
            assert scratch.hook(io(**SOCKET), id=identity).returncode == 0
            assert audited()[-1]["requester"]["user"] == 0
            (one,) = of(scratch.init.pid)
            assert (one.rule, one.owner, one.owner_name) == ("everything", BOB.uid, BOB.name)
            # What bob has a broker note of it comes after that.
            running = of_process(scratch.init.pid)
            known = {(identity, BOB.uid): Granted(rule="bob's", shown={}, path=BPFFS, time=0)}
            (his,) = of_container(running, ENUMS, known)
            known[identity, 0] = Granted(rule="ours", shown={}, path=BPFFS, time=0)
            (ours,) = of_container(running, ENUMS, known)
        assert (his.rule, ours.rule) == ("bob's", "ours")


def test_the_process_that_is_looked_at_has_a_network_of_its_own() -> None:
    """The container it is in shares the host's, and so what it loads reaches that."""
    with Scratch() as scratch:
        delegate(scratch.init.pid, SOCKET | {"delegate_progs": "xdp"})
        with scratch.running("unshare", "--net", "--mount", "--") as process:
            (one,) = of_container(of_process(process.pid), ENUMS, {})
            assert one.host_network
            found = not_well(findings("--pid", str(process.pid)))
    assert "host-network" in [notice.code for notice in one.warnings]
    assert "host-network" in found


def test_warnings() -> None:
    lists = SOCKET | {"delegate_progs": "xdp:cgroup_skb:kprobe"}
    with workload(network=True, lists=lists) as (pid, _):
        (one,) = of(pid)
    assert [notice.code for notice in one.warnings] == [
        "host-network",
        "host-cgroup",
        "reaches-beyond",
    ]
    assert (one.host_network, one.host_cgroup) == (True, True)


def test_a_user_goes_in_and_out_of_their_own_container() -> None:
    nobodys = ("setpriv", "--reuid=61997", "--regid=61997", "--clear-groups")
    with Scratch(prefix=nobodys) as scratch:
        delegate(scratch.init.pid, SOCKET | {"delegate_progs": "xdp"})
        with scratch.running("unshare", "--net"):
            (one,) = of(scratch.init.pid)
    assert one.owner == 61997
    assert [notice.code for notice in one.warnings] == ["host-network", "reaches-beyond"]


def test_a_container_that_ends() -> None:
    with Scratch() as scratch:
        delegate(scratch.init.pid, SOCKET)
        one = of_process(scratch.init.pid)
        assert len(list(of_container(one, ENUMS, {}))) == 1
    assert list(of_container(one, ENUMS, {})) == []


def test_a_pid_that_is_another_s_by_now() -> None:
    with Scratch() as scratch, Scratch() as other:
        delegate(other.init.pid, SOCKET)
        one = with_pid(of_process(scratch.init.pid), other.init.pid)
        assert list(of_container(one, ENUMS, {})) == []


def with_pid(one: Running, pid: int) -> Running:
    """That container, as if its process's pid had become another's since it was looked at."""
    fields = {name: getattr(one, name) for name in Running.__slots__}
    return Running(**fields | {"pid": pid})


def test_nothing_is_delegated_to_the_host() -> None:
    ours = Path("/proc/self/ns/mnt").stat().st_ino
    assert ours not in [one.container.mount for one in delegations(ENUMS)]


# Binds a directory with a long name on itself, and what is there again, so that the whole is more
# than anybody wants to read.
CROWD = """
for number in range(60):
    name = root + "/opt/" + "x" * 230 + str(number)
    os.mkdir(name)
    for _ in range(200):
        mount(name, name, None, BIND)
"""


def test_among_thousands_of_mounts() -> None:
    """A container's root can hide nothing there."""
    with Scratch(setup=CROWD) as scratch:
        delegate(scratch.init.pid, SOCKET)
        assert len(Path(f"/proc/{scratch.init.pid}/mountinfo").read_bytes()) > 4 << 20
        assert [one.path for one in of(scratch.init.pid)] == [BPFFS]
