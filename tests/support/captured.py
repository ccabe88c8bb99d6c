"""States as engines have handed them to a hook, and bundles with the config.json of each."""

import json
from pathlib import Path
from typing import Any

import pytest

from oci_bpf_hook.errors import BAD_STATE, HookError
from oci_bpf_hook.oci.state import Rootfs, State, check, find_rootfs
from oci_bpf_hook.text.strict_json import load_json
from tests.support.places import ROOT

STATES = ROOT / "tests" / "data" / "states"
# One of each runtime and engine that differ in what they say of the root filesystem.
CRUN = STATES / "podman-4.3.1-rootful-crun-1.8.1" / "createRuntime.state.json"
RUNC = STATES / "podman-4.3.1-rootful-runc-1.1.5" / "createRuntime.state.json"
RELATIVE = STATES / "containerd-2.4-nri-crun" / "createRuntime.state.json"


def config_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        path.with_name(path.name.replace(".state.", ".config.")).read_text()
    )
    return found


def raw(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


class Bundle:
    """A captured state whose bundle is a directory of ours, with the captured config.json in it."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.crun = directory / "crun"
        self.crun.mkdir()
        self.directory = directory / "bundle"
        self.directory.mkdir()
        self.file = self.directory / "config.json"
        self.config = config_of(path)
        self.state = raw(path) | {"bundle": str(self.directory)}
        self.write()

    def write(self) -> None:
        self.file.write_text(json.dumps(self.config))

    def checked(self) -> State:
        return check(load_json(json.dumps(self.state).encode()))

    def find(self) -> Rootfs:
        return find_rootfs(self.checked(), crun=str(self.crun))

    def refused(self, says: str = "") -> None:
        with pytest.raises(HookError) as caught:
            self.find()
        assert caught.value.code == BAD_STATE
        assert "the container's root filesystem can't be found: " in str(caught.value)
        assert says in str(caught.value)

    def copy_for_crun(self) -> Path:
        """The copy of config.json that crun keeps in its own directory."""
        copy = self.crun / str(self.state["id"])
        copy.mkdir()
        (copy / "config.json").write_text(json.dumps(self.config))
        return copy / "config.json"
