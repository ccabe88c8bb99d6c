"""The hook at precreate as podman runs it: a configuration goes in, and what will run comes out."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from oci_bpf_hook.errors import (
    BAD_ANNOTATION,
    BAD_POLICY,
    BAD_STATE,
    NO_BROKER,
    NO_USER_NAMESPACE,
    REFUSED,
    UNKNOWN_NAME,
    USAGE,
)
from oci_bpf_hook.oci.state import CONFIG_MAX
from tests.project.test_budget import ALLOWED, ASKED, CONFINED, FIRST, GRANT
from tests.support.broker import ALONE, Broker
from tests.support.imports import loaded
from tests.support.policy import EVERYTHING, UNCONFINED, audited, in_force
from tests.support.scratch import ENVIRONMENT, LAUNCHER, Scratch, assert_failed, io, run_hook

ID = "5f3c" * 16
HOOK = {"path": str(LAUNCHER), "args": ["oci-bpf-hook"], "env": ["PATH=/bin"], "timeout": 15}
XDP = io(profile="xdp")
REFUSING = {"names": ["bpf", "acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
ADDED = {"names": ["bpf"], "action": "SCMP_ACT_ALLOW"}


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(UNCONFINED):
        yield


def config(annotations: Mapping[str, str], **changed: Any) -> dict[str, Any]:
    """A configuration as podman 4.3.1 makes them, with what there is to look at and to change."""
    names = ["CAP_CHOWN", "CAP_KILL"]
    kinds = ("pid", "network", "ipc", "uts", "mount", "user", "cgroup")
    made: dict[str, Any] = {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0, "umask": 18},
            "args": ["sh", "-c", "echo <é>"],
            "env": ["PATH=/bin"],
            "capabilities": {kind: [*names] for kind in ("bounding", "effective", "permitted")},
        },
        "root": {"path": f"/var/lib/nowhere/storage/overlay/{ID}/merged"},
        "mounts": [
            {
                "destination": "/run/.containerenv",
                "source": f"/run/containers/storage/overlay-containers/{ID}/userdata/.containerenv",
                "options": ["bind"],
            }
        ],
        "hooks": {"createRuntime": [HOOK]},
        "annotations": {"io.container.manager": "libpod", **annotations},
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [REFUSING, {"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
            },
        },
    }
    return made | changed


def user_namespace(path: str | None) -> dict[str, Any]:
    """The linux section with this user namespace, None for none."""
    linux: dict[str, Any] = config({})["linux"]
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "user"]
    if path:
        linux["namespaces"].append({"type": "user", "path": path})
    return linux


def precreate(
    given: Mapping[str, Any] | str | bytes, *arguments: str, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    text = json.dumps(given) if isinstance(given, Mapping) else given
    return run_hook(text, "precreate", *arguments, prefix=prefix)


def changed(given: Mapping[str, Any], *arguments: str, **more: Any) -> dict[str, Any]:
    """What comes out for `given`; the rest of it is as it was."""
    done = precreate(given, *arguments, **more)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    for key in given.keys() - {"process", "linux"}:
        assert found[key] == given[key]
    return found


def added(given: Mapping[str, Any], *arguments: str, **more: Any) -> set[str]:
    """The capabilities that come out and weren't in `given`."""
    before = given["process"]["capabilities"]
    after = changed(given, *arguments, **more)["process"]["capabilities"]
    sets = {kind: set(names) - set(before.get(kind, ())) for kind, names in after.items()}
    assert set(map(frozenset, sets.values())) == {frozenset(sets["effective"])}
    return sets["effective"]


def refused(code: int, given: Mapping[str, Any] | str | bytes, *words: str, **more: Any) -> None:
    """Nothing comes out, and so podman starts nothing."""
    assert_failed(precreate(given, **more), code, *words)


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


# ---- what is no configuration -----------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "code"),
    [
        (io(delegate_cmd="any"), BAD_ANNOTATION),
        (io(delegate_cmds="map_crate"), UNKNOWN_NAME),
        (io(profile="none"), UNKNOWN_NAME),
        (io(**{"profile/web": "xdp"}), BAD_ANNOTATION),
    ],
)
def test_what_is_asked_wrongly(annotations: dict[str, str], code: int) -> None:
    refused(code, config(annotations))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
RULES = st.lists(
    st.fixed_dictionaries(
        {
            "names": st.lists(st.sampled_from(["bpf", "read", "acct"]), unique=True, min_size=1),
            "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"]),
        },
        optional={"args": st.lists(JSON, max_size=1), "errnoRet": st.integers(0, 4095)},
    ),
    max_size=4,
)


def without_bpf(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [{**one, "names": [name for name in one["names"] if name != "bpf"]} for one in rules]
    return [one for one in found if one["names"]]


@settings(max_examples=40)
@drawn(
    st.dictionaries(st.text(max_size=4), JSON, max_size=3),
    RULES,
    st.sampled_from([0, 1000, 1 << 31]),
    st.lists(st.sampled_from(["CAP_BPF", "CAP_NET_ADMIN", "CAP_CHOWN"]), unique=True),
    st.sampled_from([None, 1, "\t"]),
)
def test_whatever_it_is_no_more_is_different(
    extra: dict[str, Any],
    rules: list[dict[str, Any]],
    uid: int,
    names: list[str],
    indent: int | str | None,
) -> None:
    given = extra | config({**XDP, **io(path="/run/bpf")})
    given["process"] = extra | given["process"]
    given["linux"] = extra | given["linux"]
    given["process"]["user"]["uid"] = uid
    given["process"]["capabilities"] = {"bounding": [*names], "effective": []}
    given["linux"]["seccomp"]["syscalls"] = rules
    done = precreate(json.dumps(given, indent=indent, ensure_ascii=indent is None))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sets = found["process"].pop("capabilities")
    before = given["process"].pop("capabilities")
    for kind, after in sets.items():
        old = before.get(kind, [])
        assert after[: len(old)] == old
        assert set(after) - set(old) <= {"CAP_BPF", "CAP_NET_ADMIN"}
    assert ("ambient" in sets) is (uid != 0)
    assert found["process"].pop("env") == [
        *given["process"].pop("env"),
        "LIBBPF_BPF_TOKEN_PATH=/run/bpf",
    ]
    after = found["linux"]["seccomp"].pop("syscalls")
    given["linux"]["seccomp"].pop("syscalls")
    assert without_bpf(after) == without_bpf(rules)
    allowed = [one for one in after if "bpf" in one["names"]]
    assert all(one["action"] == "SCMP_ACT_ALLOW" and not one.get("args") for one in allowed)
    assert found == given


ODD: list[Any] = [None, 1, "x", [1], [{}], {"x": 1}]
DEEP = json.dumps(config(XDP))[:-1] + ', "x": ' + "[" * 700 + "]" * 700 + "}"


@pytest.mark.parametrize("key", ["process", "linux", "mounts", "hooks", "root"])
@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_configurations(key: str, odd: Any) -> None:
    """All of it comes out as it went in but for what is added, or nothing does."""
    given = config({**XDP, **io(path="/run/bpf")})
    for one in (given | {key: odd}, {k: v for k, v in given.items() if k != key}):
        done = precreate(one)
        if done.returncode:
            assert_failed(done, done.returncode)
            assert done.returncode in (BAD_STATE, NO_USER_NAMESPACE)
        else:
            assert json.loads(done.stdout).keys() == one.keys() | {"process"}


@pytest.mark.parametrize(
    "rules", [1, [1], {}, [{"names": 1}], [{"names": ["bpf"]}], [{"names": ["bpf"], "action": 1}]]
)
def test_odd_filters(rules: Any) -> None:
    given = config(XDP)
    given["linux"]["seccomp"]["syscalls"] = rules
    done = precreate(given)
    assert done.returncode == 0 or done.stdout == ""
    assert done.returncode in (0, BAD_STATE), done.stderr


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"annotations": 1}',
        b'{"annotations": {"io.bpffs.profile": 1}}',
        b"[" * 100_000,
        json.dumps(config(XDP)).encode() + b"{}",
        # Who reads the first of two reads another container than who reads the last.
        json.dumps(config(XDP)).replace('"linux"', '"linux": {}, "linux"').encode(),
    ],
)
def test_no_configuration(text: bytes) -> None:
    refused(BAD_STATE, text, "configuration on stdin")


def test_one_that_is_too_large() -> None:
    refused(BAD_STATE, b" " * (CONFIG_MAX + 1), f"at most {CONFIG_MAX} are read")
    large = config(XDP, x="é" * 500_000)
    assert added(large) == {"CAP_BPF", "CAP_NET_ADMIN"}


def test_one_that_never_ends() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b'{"annotations": ')
        done = run_hook(reading, "precreate")
        assert_failed(done, BAD_STATE, "the configuration on stdin didn't end within 4 seconds")
    finally:
        os.close(reading)
        os.close(writing)


def test_one_that_is_deep() -> None:
    done = precreate(DEEP)
    assert done.returncode in (0, BAD_STATE), done.stderr
    assert (done.stdout == "") is (done.returncode == BAD_STATE)


def test_nobody_takes_it_back() -> None:
    closed = 'exec "$@" 1>&-'
    refused(BAD_STATE, config(XDP), "can't be handed back", prefix=("sh", "-c", closed, "sh"))


@pytest.mark.parametrize("arguments", [("x",), ("--profile", "xdp"), ("--header", "x")])
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    assert_failed(precreate(config(XDP), *arguments), USAGE)
    assert precreate(config({}), *arguments).returncode == 0


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
        *("container.images", "container.proposed", "hook.precreate", "oci.additions", "oci.cdi"),
        *("oci.seccomp", "text.splice"),
    }
    # Nothing is mounted, nor put on record: that is the hook's.
    less = {
        *("audit.write", "delegation.lint", "mount.child", "mount.container_half"),
        "mount.host_half",
    }
    assert ours - FIRST == (ASKED | GRANT | CONFINED | more) - less
    assert others <= ALLOWED
