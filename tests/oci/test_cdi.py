"""cdi.py: the CDI file, its schema, and what is read back of it."""

import json
from typing import Any

import jsonschema
import pytest

from oci_bpf_hook.delegation.annotations import PATH
from oci_bpf_hook.oci import cdi
from tests.support.places import ROOT

SCHEMA = json.loads((ROOT / "schema" / "cdi.schema.json").read_text())
HOOK = json.loads((ROOT / "hooks.d" / "oci-bpf-hook.json").read_text())["hook"]


def spec(*profiles: str, engine: str | None = None, path: str = PATH) -> dict[str, Any]:
    return cdi.spec(profiles, HOOK, engine=engine, path=path)


def valid(data: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(data))


def test_a_device() -> None:
    data = spec("xdp")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(data, SCHEMA)
    (device,) = data["devices"]
    assert device["name"] == "xdp"
    # No device node, and no variable where libbpf finds the token by itself.
    assert set(device["containerEdits"]) == {"hooks"}
    (hook,) = device["containerEdits"]["hooks"]
    assert hook["args"] == [*HOOK["args"], "--profile", "xdp"]
    assert {key: hook[key] for key in ("path", "env", "timeout")} == {
        key: HOOK[key] for key in ("path", "env", "timeout")
    }


def test_another_path_is_told_to_libbpf() -> None:
    (device,) = spec("xdp", engine="docker", path="/run/bpf")["devices"]
    assert device["containerEdits"]["env"] == ["LIBBPF_BPF_TOKEN_PATH=/run/bpf"]
    (hook,) = device["containerEdits"]["hooks"]
    assert hook["args"][1:] == ["--engine", "docker", "--profile", "xdp", "--path", "/run/bpf"]


@pytest.mark.parametrize(("name", "version"), [("xdp", "0.3.0"), ("4packets", "0.5.0")])
def test_the_version_is_the_least_that_will_do(name: str, version: str) -> None:
    data = spec("a", name)
    assert data["cdiVersion"] == version
    assert valid(data)


@pytest.mark.parametrize("name", ["a", "a.b", "a_b-c", "4"])
def test_names(name: str) -> None:
    assert cdi.is_name(name)
    assert valid(spec(name))


@pytest.mark.parametrize("name", ["a.", "a-", "a_"])
def test_names_that_cdi_has_not(name: str) -> None:
    assert not cdi.is_name(name)
    assert not valid(spec(name))


@pytest.mark.parametrize(("engine", "path"), [(None, PATH), ("cri-o", "/run/bpf")])
def test_read_back(engine: str | None, path: str) -> None:
    found = cdi.devices(spec("tc", "xdp", engine=engine, path=path))
    assert [(one.name, one.profile) for one in found] == [("tc", "tc"), ("xdp", "xdp")]
    assert {(one.program, one.engine, one.path) for one in found} == {(HOOK["path"], engine, path)}


@pytest.mark.parametrize(
    "change",
    [
        {"hookName": "createContainer"},
        {"path": "oci-bpf-hook"},
        {"args": ["oci-bpf-hook"]},
        {"args": ["oci-bpf-hook", "--profiles", "xdp"]},
        {"env": []},
        {"timeout": 0},
        {"extra": 1},
    ],
    ids=str,
)
def test_the_schema_refuses_a_hook(change: dict[str, object]) -> None:
    data = spec("xdp")
    data["devices"][0]["containerEdits"]["hooks"][0].update(change)
    assert not valid(data)


@pytest.mark.parametrize(
    "change",
    [
        {"deviceNodes": [{"path": "/dev/null"}]},
        {"mounts": []},
        {"env": ["LD_PRELOAD=/x"]},
        {"hooks": []},
    ],
    ids=str,
)
def test_the_schema_refuses_other_edits(change: dict[str, object]) -> None:
    data = spec("xdp")
    data["devices"][0]["containerEdits"].update(change)
    assert not valid(data)
