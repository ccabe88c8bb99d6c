"""The hook at precreate with whatever isn't a configuration, or an odd one."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from oci_bpf_hook.errors import BAD_ANNOTATION, BAD_STATE, NO_USER_NAMESPACE, UNKNOWN_NAME, USAGE
from oci_bpf_hook.oci.state import CONFIG_MAX
from tests.support.policy import UNCONFINED, in_force
from tests.support.precreate import XDP, added, config, precreate, refused
from tests.support.scratch import assert_failed, io, run_hook


@pytest.fixture(autouse=True)
def builtin() -> Iterator[None]:
    with in_force(UNCONFINED):
        yield


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
