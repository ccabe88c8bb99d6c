"""doctor about the guard: whether the policy's rules need it, and what keeps it away."""

import pytest

from oci_bpf_hook.paths import POLICY
from tests.support.well import NO_RULE, Host, causes

LSMS = "/sys/kernel/security"
PROGRAMS = "delegate_cmds: [prog_load], delegate_progs: [xdp]"
CONFINED = "version: 1\nrules:\n- {name: own, match: {%s}, allow: {%s}}\n"
OTHERS = f"""\
version: 1
rules:
- {{name: maps, match: {{user: root}}, allow: {{delegate_cmds: [map_create]}}}}
- {{name: trusted, match: {{user: root}}, allow: {{{PROGRAMS}, confined: false}}}}
- {{name: nobody, deny: because}}
"""


def about_the_guard(found: list[dict[str, str]]) -> dict[str, str]:
    (one,) = (one for one in found if one["what"] == "guard")
    return one


@pytest.mark.parametrize("match", ["", "user: root", "namespace: [a, b]"])
def test_rules_that_take_the_guard(host: Host, match: str) -> None:
    """A host that hasn't turned it on is told so, and has no problem."""
    host.files[POLICY] = CONFINED % (match, PROGRAMS)
    found = host.doctor()
    assert causes(found) == {"guard"}
    one = about_the_guard(found)
    assert one["state"] == "warning"
    assert one["why"].startswith("the guard isn't loaded, and ")
    assert one["why"].endswith("; without it no confined rule lets a program be loaded")


def test_the_built_in_policy_takes_the_guard(host: Host) -> None:
    found = host.doctor(first=f"rm {POLICY}")
    assert causes(found) == {"guard"}
    assert about_the_guard(found)["state"] == "warning"


@pytest.mark.parametrize("policy", [NO_RULE, OTHERS])
def test_rules_that_do_without_the_guard(host: Host, policy: str) -> None:
    host.files[POLICY] = policy
    found = host.doctor()
    assert causes(found) == set()
    assert about_the_guard(found)["why"].endswith("; no rule of the policy needs it")


def test_what_to_put_on_the_kernel_s_command_line(host: Host) -> None:
    host.files[POLICY] = CONFINED % ("", PROGRAMS)
    lines = (
        f"mount -t tmpfs none {LSMS}",
        f"printf capability,lockdown,yama,apparmor > {LSMS}/lsm",
    )
    found = host.doctor(first="\n".join(lines))
    assert causes(found) == {"guard"}
    one = about_the_guard(found)
    assert f"can't be turned on: BPF programs can't be LSMs on this host: {LSMS}/lsm" in one["why"]
    assert one["fix"] == (
        "put lsm=lockdown,yama,apparmor,bpf on the kernel's command line and reboot"
    )


def test_a_kernel_that_can_have_no_guard(host: Host) -> None:
    host.files |= {POLICY: CONFINED % ("", PROGRAMS), "/sys/kernel/btf/vmlinux": "no BTF\n"}
    found = host.doctor()
    assert causes(found) == {"btf", "guard"}
    one = about_the_guard(found)
    assert "can't be turned on: this kernel has no LSM hooks for BPF tokens" in one["why"]
    assert "confined: false" in one["fix"]


def test_who_can_t_tell_whether_there_is_a_guard(host: Host) -> None:
    host.files[POLICY] = CONFINED % ("", PROGRAMS)
    one = about_the_guard(host.doctor(user=65534))
    assert (one["state"], one["fix"]) == ("ok", "")
    assert one["why"] == "only root on the host can tell whether it is in force"
