"""The hook at precreate as podman runs it: a configuration goes in, and what will run comes out."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.errors import BAD_POLICY, BAD_STATE, NO_BROKER, NO_USER_NAMESPACE, REFUSED
from tests.project.test_budget import ALLOWED, ASKED, CONFINED, FIRST, GRANT
from tests.support.broker import ALONE, Broker
from tests.support.imports import loaded
from tests.support.policy import EVERYTHING, UNCONFINED, audited, in_force
from tests.support.precreate import (
    HOOK,
    ID,
    REFUSING,
    XDP,
    added,
    changed,
    config,
    precreate,
    refused,
)
from tests.support.scratch import ENVIRONMENT, LAUNCHER, Scratch, io

ADDED = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW"}


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(UNCONFINED):
        yield


def user_namespace(path: str | None) -> dict[str, Any]:
    """The linux section with this user namespace, None for none."""
    linux: dict[str, Any] = config({})["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "user"]
    if path:
        linux["namespaces"].append({"type": "user", "path": path})
    return linux


# ---- who doesn't ask -------------------------------------------------------------------


UNTOUCHED = [
    b'{"annotations": {"io.example": "x"}, "a": 1e400, "a": 123456789012345678901234567890}',
    b' {"annotations":\t{"xio.bpffs.a": "\\ud800 \xc3\xa9"}, "annotations": {}}\n\n',
    b"{}",
    b'{"annotations": null}',
    json.dumps(config({}, hooks={}, linux={}, process=None), indent=3).encode(),
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_who_doesn_t_ask_is_left_as_it_is(text: bytes) -> None:
    done = subprocess.run(
        [LAUNCHER, "precreate"], input=text, capture_output=True, check=False, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, text, b"")


def test_who_asks_for_nothing_is_left_as_it_is() -> None:
    """As a pod's other containers: a key for another container, and an empty list."""
    pod = {"io.kubernetes.container.name": "web", "io.bpffs.delegate_cmds/agent": "any"}
    for annotations in (pod, io(delegate_cmds="")):
        text = json.dumps(config(annotations), indent=2)
        assert precreate(text).stdout == text


# ---- what is added ---------------------------------------------------------------------


def test_what_it_takes_and_no_more() -> None:
    given = config(XDP)
    found = changed(given)
    assert found["process"].pop("capabilities") == {
        kind: ["CAP_CHOWN", "CAP_KILL", "CAP_BPF", "CAP_NET_ADMIN"]
        for kind in ("bounding", "effective", "permitted")
    }
    given["process"].pop("capabilities")
    # The path is libbpf's own.
    assert found["process"] == given["process"]
    assert found["linux"].pop("seccomp")["syscalls"] == [
        {**REFUSING, "names": ["acct"]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        ADDED,
    ]
    given["linux"].pop("seccomp")
    assert found["linux"] == given["linux"]
    assert added(config(io(profile="socket-filter"))) == {"CAP_BPF"}


def test_all_else_stays_as_it_is_written() -> None:
    odd = (
        '{ "z": 1.10, "big": 340282366920938463463374607431768211456, "e": 1E2, '
        '"s": "\\/\\ud800é" ,\t"process": {"env":["A=\\u0041"], "user": {"uid": 0} }, '
    )
    rest = json.dumps(config(XDP))[1:].replace('"process":', '"other":')
    done = precreate(odd + rest)
    assert done.returncode == 0, done.stderr
    for part in ('"z": 1.10', "340282366920938463463374607431768211456", "1E2", "\\/\\ud800é"):
        assert part in done.stdout
    assert '"env":["A=\\u0041"]' in done.stdout
    # The second time there is nothing left to do, in whatever order.
    assert precreate(done.stdout).stdout == done.stdout


def test_another_path() -> None:
    found = changed(config({**XDP, **io(path="/run/bpf")}))
    assert found["process"]["env"] == ["PATH=/bin", "LIBBPF_BPF_TOKEN_PATH=/run/bpf"]
    told = config({**XDP, **io(path="/run/bpf")})
    told["process"]["env"].append("LIBBPF_BPF_TOKEN_PATH=/mine")
    assert changed(told)["process"]["env"] == told["process"]["env"]


def test_a_user_of_the_container() -> None:
    given = config(XDP)
    given["process"]["user"]["uid"] = 1000
    given["process"]["capabilities"].update(effective=[], permitted=[])
    sets = changed(given)["process"]["capabilities"]
    assert sets["ambient"] == sets["effective"] == ["CAP_BPF", "CAP_NET_ADMIN"]


def test_a_filter_that_hands_bpf_to_a_listener() -> None:
    """A recording's: let through, its listener would hear nothing."""
    given = config(XDP)
    rules = [{"names": ["bpf"], "action": "SCMP_ACT_NOTIFY"}]
    given["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    assert changed(given)["linux"] == given["linux"]
    given["linux"].pop("seccomp")
    assert changed(given)["linux"] == given["linux"]


# ---- never more than the policy gives ---------------------------------------------------


TRIMMED = """\
version: 1
rules:
- name: little
  match: {host_network: false}
  allow: {delegate_cmds: [map_create], delegate_maps: [hash]}
  on_excess: trim
"""


def test_a_trimmed_grant_has_the_capabilities_of_what_is_left() -> None:
    asked = io(
        delegate_cmds="map_create:prog_load", delegate_maps="hash:sockmap", delegate_progs="any"
    )
    with in_force(EVERYTHING):
        assert added(config(asked)) == {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}
    with in_force(TRIMMED):
        assert added(config(asked)) == {"CAP_BPF"}


def test_a_refusal() -> None:
    before = len(audited())
    refused(REFUSED, config(io(profile="tracing")), "doesn't allow", f"oci-bpf-hook: {ID}: ")
    (line,) = audited()[before:]
    assert (line["container"], line["outcome"]) == (ID, "refused")
    # Nothing is given here that would have to be on record.
    assert added(config(XDP)) == {"CAP_BPF", "CAP_NET_ADMIN"}
    assert len(audited()) == before + 1


def test_the_policy_s_conditions() -> None:
    without = config(XDP)
    without["linux"]["namespaces"] = [
        one for one in without["linux"]["namespaces"] if one["type"] != "network"
    ]
    cgroups = config(io(profile="cgroup-network"))
    refused(REFUSED, without)
    assert added(cgroups) == {"CAP_BPF", "CAP_NET_ADMIN"}
    cgroups["mounts"].append({"type": "bind", "source": "/sys", "destination": "/x"})
    refused(REFUSED, cgroups)
    rules = "version: 1\nrules: [{name: x, match: {%s}, allow: {delegate_cmds: [map_create]}}]\n"
    asked = config(io(delegate_cmds="map_create"))
    with in_force(rules % "user: root"):
        assert added(asked) == {"CAP_BPF"}
    with in_force(rules % "rootless: true"):
        refused(REFUSED, asked)
    with in_force(rules % "engine: podman"):
        refused(REFUSED, asked)
        assert added(asked, "--engine", "podman") == {"CAP_BPF"}
    with in_force("version: 2\n"):
        refused(BAD_POLICY, asked)
        assert precreate(config({})).returncode == 0


# ---- the host's own user namespace ------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (None, NO_USER_NAMESPACE),
        ("/proc/self/ns/user", NO_USER_NAMESPACE),
        # Workers that share the tests know each by one name.
        pytest.param(f"/proc/{os.getpid()}/ns/user", NO_USER_NAMESPACE, id="by its number"),
        ("/proc/self/ns/net", BAD_STATE),
        ("/dev/null", BAD_STATE),
    ],
)
def test_cap_bpf_is_never_the_hosts(path: str | None, code: int) -> None:
    """Whatever a path is called: the namespace behind it is looked at."""
    refused(code, config(XDP, linux=user_namespace(path)))


def test_the_namespace_of_another_container() -> None:
    with Scratch() as other:
        given = config(XDP, linux=user_namespace(f"/proc/{other.init.pid}/ns/user"))
        assert added(given) == {"CAP_BPF", "CAP_NET_ADMIN"}


@pytest.mark.parametrize(
    "hooks",
    [
        {},
        {"createRuntime": [{**HOOK, "path": "/bin/true"}]},
        {"createRuntime": [{**HOOK, "path": "/nowhere/oci-bpf-hook"}]},
        {"createRuntime": [{**HOOK, "args": ["oci-bpf-hook", "--profile", "xdp"]}]},
        {"createRuntime": [{**HOOK, "args": ["oci-bpf-hook", "precreate"]}]},
        {"poststop": [HOOK]},
        None,
    ],
)
def test_without_the_hook_that_decides_nothing_is_added(hooks: Any) -> None:
    """As while all of it is being uninstalled: the container starts, and isn't given anything."""
    text = json.dumps(config(XDP, hooks=hooks), indent=2)
    done = precreate(text)
    assert (done.returncode, done.stdout, done.stderr) == (0, text, "")


@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])
def test_any_stage_of_the_hook_will_do(stage: str, tmp_path: Path) -> None:
    link = tmp_path / "hook"
    link.symlink_to(LAUNCHER)
    hooks = {stage: [{"path": "/bin/true"}, {**HOOK, "path": str(link)}]}
    assert added(config(XDP, hooks=hooks)) == {"CAP_BPF", "CAP_NET_ADMIN"}


# ---- beside a rootless engine -----------------------------------------------------------


def test_rootless_the_broker_is_asked() -> None:
    shared = config(io(profile="socket-filter"), linux=user_namespace(None))
    refused(NO_BROKER, shared, "doesn't answer", prefix=ALONE)
    with Broker():
        before = len(audited())
        assert added(shared, prefix=ALONE) == {"CAP_BPF"}
        assert added(config(io(profile="socket-filter")), prefix=ALONE) == {"CAP_BPF"}
        # It was asked, and nobody has come for the mount.
        assert audited()[before:] == []
        refused(REFUSED, config(io(profile="tracing")), prefix=ALONE)
        assert audited()[-1]["outcome"] == "refused"
        assert precreate(config({}), prefix=ALONE).returncode == 0


# ---- its price --------------------------------------------------------------------------


def imported(given: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Our modules and the others that it imports beside what a bare interpreter has."""
    return loaded("precreate", stdin=given)


def test_what_it_imports() -> None:
    ours, others = imported(config({}))
    assert ours == ASKED | {"hook.precreate"}
    assert others <= ALLOWED - {"_ctypes", "_socket"}
    # Of podman 6: there is no image's annotation to look for.
    asks = config(io(delegate_cmds="map_create", delegate_maps="hash"), ociVersion="1.3.0")
    with in_force(None):
        imported(asks)
        ours, others = imported(asks)
    more = {
        *(
            "bpf.capabilities",
            "container.images",
            "container.proposed",
            "hook.precreate",
            "oci.additions",
            "oci.cdi",
        ),
        *("oci.seccomp", "text.splice"),
    }
    # Nothing is mounted, nor put on record: that is the hook's.
    less = {
        *("audit.write", "delegation.lint", "mount.child", "mount.container_half"),
        "mount.host_half",
    }
    assert ours - FIRST == (ASKED | GRANT | CONFINED | more) - less
    assert others <= ALLOWED
