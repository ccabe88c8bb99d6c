"""doctor --object: real objects against real delegations."""

import subprocess
from pathlib import Path

import pytest

from oci_bpf_hook.errors import BAD_OBJECT
from tests.support.consumer import SOURCES
from tests.support.situation import SOCKET, command, findings, others, workload

XDP = {
    "delegate_cmds": "map_create:prog_load:btf_load",
    "delegate_maps": "any",
    "delegate_progs": "socket_filter:xdp",
    "delegate_attachs": "cgroup_inet_ingress:xdp",
}


def build(source: Path, target: Path) -> Path:
    (include,) = Path("/usr/include").glob("*-linux-gnu")
    options = ("-target", "bpf", "-g", "-O2", "-idirafter", str(include))
    subprocess.run(["clang", *options, "-o", str(target), "-c", str(source)], check=True)
    return target


@pytest.fixture(scope="module")
def firewall(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("objects") / "xdp_firewall.o"
    return str(build(SOURCES / "xdp_firewall.bpf.c", target))


def test_it_is_enough(firewall: str) -> None:
    with workload(lists=XDP) as (pid, _):
        found = findings("--pid", str(pid), "--object", firewall)
    assert others(found) == {}
    assert any(one["what"] == "object" and one["state"] == "ok" for one in found)


@pytest.mark.parametrize(
    ("option", "without", "missing"),
    [
        ("delegate_progs", "socket_filter", "delegate_progs lacks xdp: program "),
        ("delegate_progs", "xdp", "delegate_progs lacks socket_filter: "),
        ("delegate_attachs", "xdp", "delegate_attachs lacks cgroup_inet_ingress: "),
        ("delegate_cmds", "map_create:prog_load", "delegate_cmds lacks btf_load: "),
    ],
)
def test_one_bit_is_missing(firewall: str, option: str, without: str, missing: str) -> None:
    with workload(lists=XDP | {option: without}) as (pid, _):
        found = findings("--pid", str(pid), "--object", firewall)
    wrong = [one for one in found if one["state"] == "problem"]
    assert [one["what"] for one in wrong] == ["missing-bit"], wrong
    assert wrong[0]["why"].startswith(missing)
    assert wrong[0]["fix"].startswith(f"oci-bpf-hook delegate --pid {pid} --cmds ")


def test_the_fix_is_one(firewall: str) -> None:
    """What is to be pasted gives the object what it lacks."""
    with workload(lists=SOCKET) as (pid, _):
        wrong = others(findings("--pid", str(pid), "--object", firewall))
        assert set(wrong) == {"missing-bit"}
        arguments = wrong["missing-bit"]["fix"].split()[1:]
        assert command(*arguments).returncode == 0
        assert others(findings("--pid", str(pid), "--object", firewall)) == {}


def test_a_capability_is_missing(firewall: str) -> None:
    with workload("setpriv", "--bounding-set=-net_admin,-sys_admin", lists=XDP) as (pid, _):
        found = findings("--pid", str(pid), "--object", firewall)
    assert [one["what"] for one in found if one["state"] == "problem"] == ["cap-net-admin"]


def test_perf_event_open(tmp_path: Path) -> None:
    source = tmp_path / "kprobe.bpf.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("kprobe/do_exit") int probe(void *context) { return 0; }\n'
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    target = build(source, tmp_path / "kprobe.o")
    lists = XDP | {"delegate_progs": "socket_filter:kprobe"}
    with workload(lists=lists) as (pid, _):
        found = findings("--pid", str(pid), "--object", str(target))
    assert [one["what"] for one in found if one["state"] == "problem"] == ["perf-event-open"]


def test_what_is_no_object() -> None:
    done = command("doctor", "--object", "/etc/passwd")
    assert (done.returncode, done.stdout) == (BAD_OBJECT, "")
    assert "Traceback" not in done.stderr
