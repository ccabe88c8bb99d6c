"""contrib/crio, contrib/containerd and contrib/docker, by configuration.

The engines ignore an option that they don't know, so each is looked for among those of the engine's
own documentation.  What they hand over when so configured is in test_hook_engines; Docker and an
older containerd are run with it by `python -m tests.docker`.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from oci_bpf_hook.delegation.annotations import KEYS, PREFIX
from oci_bpf_hook.errors import DONE
from oci_bpf_hook.install import layout
from oci_bpf_hook.oci import cdi
from tests.support.command import command
from tests.support.places import ROOT
from tests.support.policy import in_force

CONTRIB = ROOT / "contrib"
CRIO = "50-bpf.conf"
CONTAINERD = {3: "bpf.toml", 2: "bpf-version-2.toml"}
SERVICE_ACCOUNT = "bpffs.io/service-account"
# crio.conf(5) of 1.37, but for what a table is named by.
CRIO_OPTIONS = {
    *("crio", "crio.runtime", "crio.runtime.hooks_dir", "crio.runtime.runtimes"),
    "crio.runtime.runtimes.*",
    "crio.runtime.runtimes.*.inherit_default_runtime",
    "crio.runtime.runtimes.*.default_annotations",
}
# docs/cri/config.md and docs/NRI.md of containerd 2.4.
NRI = "io.containerd.nri.v1.nri"
CONTAINERD_OPTIONS = {
    *("runtime_type", "pod_annotations", "container_annotations", "options.SystemdCgroup"),
    *("disable", "plugin_path", "enable_cdi", "cdi_spec_dirs"),
}


def toml(engine: str, name: str) -> dict[str, Any]:
    return tomllib.loads((CONTRIB / engine / name).read_text())


def options(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The options of a table and of those in it, with the tables' names in front."""
    for key, value in table.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from options(value, f"{above}{key}.")


def runtime_class() -> str:
    (found,) = yaml.safe_load_all((CONTRIB / "kubernetes" / "runtimeclass.yaml").read_text())
    return str(found["handler"])


# ---- CRI-O -------------------------------------------------------------------------------------


def test_crio() -> None:
    loaded = toml("crio", CRIO)
    runtime = loaded["crio"]["runtime"]
    assert runtime["hooks_dir"] == [str(layout.Layout(prefix="/usr", top="").hooks)]
    handlers = runtime["runtimes"]
    assert runtime_class() in handlers
    assert all(handler["inherit_default_runtime"] is True for handler in handlers.values())
    # The keys of annotations are none of CRI-O's.
    named = {
        re.sub(r"(?<=runtimes\.)[\w-]+", "*", one)
        for one in options(loaded)
        if ".default_annotations." not in one
    }
    assert named == CRIO_OPTIONS


def test_what_a_handler_of_crio_s_asks_for_is_granted() -> None:
    asking = [
        handler["default_annotations"]
        for handler in toml("crio", CRIO)["crio"]["runtime"]["runtimes"].values()
        if "default_annotations" in handler
    ]
    assert asking
    for annotations in asking:
        words = [word for pair in annotations.items() for word in ("--annotation", "=".join(pair))]
        with in_force(None):
            # On another kernel than this one the guard is taken to be in force.
            assert command("check", "--kernel", "6.12", *words).returncode == DONE


# ---- containerd --------------------------------------------------------------------------------


def plugins(version: int) -> dict[str, Any]:
    """CRI's runtime plugin and NRI's, by the names that they have in that version."""
    loaded = toml("containerd", CONTAINERD[version])
    assert loaded["version"] == version
    cri = {3: "io.containerd.cri.v1.runtime", 2: "io.containerd.grpc.v1.cri"}[version]
    assert loaded.keys() == {"version", "plugins"}
    assert loaded["plugins"].keys() == {cri, NRI}
    return {"cri": loaded["plugins"][cri], "nri": loaded["plugins"][NRI]}


@pytest.mark.parametrize("version", CONTAINERD)
def test_containerd(version: int) -> None:
    cri, nri = plugins(version).values()
    runtimes = cri.pop("containerd")["runtimes"]
    assert runtimes.keys() == {runtime_class()}
    runtime = runtimes[runtime_class()]
    named = {
        option for table in (cri, nri, runtime) for option in options(table) if option != "options"
    }
    assert named == CONTAINERD_OPTIONS
    assert cri["enable_cdi"] is True
    assert cri["cdi_spec_dirs"] == list(cdi.DIRECTORIES)
    assert nri["disable"] is False


def test_both_versions_say_the_same() -> None:
    assert plugins(3) == plugins(2)


@pytest.mark.parametrize("option", ["pod_annotations", "container_annotations"])
def test_containerd_hands_on_our_annotations_and_no_others(option: str) -> None:
    globs = plugins(3)["cri"]["containerd"]["runtimes"][runtime_class()][option]
    # Go's path.Match, as far as it is used: `*` is anything but a slash.
    patterns = [re.escape(one).replace(r"\*", "[^/]*") for one in globs]

    def handed_on(key: str) -> bool:
        return any(re.fullmatch(pattern, key) for pattern in patterns)

    for key in KEYS:
        assert handed_on(PREFIX + key)
        assert handed_on(f"{PREFIX}{key}/web")
    for key in (
        "io.kubernetes.cri.sandbox-namespace",
        "run.oci.hooks",
        "io.bpffsx",
        "x/io.bpffs.a",
    ):
        assert not handed_on(key)


# ---- Docker ------------------------------------------------------------------------------------


def test_docker() -> None:
    """`features.cdi` takes Docker 25 or later, and is the default since 28.2."""
    loaded = json.loads((CONTRIB / "docker" / "daemon.json").read_text())
    assert loaded == {"features": {"cdi": True}, "userns-remap": "default"}
