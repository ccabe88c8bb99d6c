"""What an administrator has chosen in the JSON that registers the hook, and an upgrade keeps."""

import json
from pathlib import Path

import pytest

from tests.cli.commands.test_install import HOOKS, install


@pytest.mark.parametrize("engine", ["cri-o", None])
def test_an_upgrade_keeps_what_was_chosen(tmp_path: Path, engine: str | None) -> None:
    install(tmp_path, "--precreate", *(("--engine", engine) if engine else ()))
    registered = tmp_path / HOOKS / "oci-bpf-hook.json"
    config = json.loads(registered.read_text())
    # What an upgrade brings, and what is the administrator's.
    config["hook"]["env"] = ["PATH=/older"]
    config["hook"]["timeout"] = 120
    registered.write_text(json.dumps(config))
    assert install(tmp_path, "--precreate") == [("write", f"{HOOKS}/oci-bpf-hook.json")]
    hook = json.loads(registered.read_text())["hook"]
    assert hook["args"] == ["oci-bpf-hook", *(("--engine", engine) if engine else ())]
    assert (hook["timeout"], hook["env"]) == (120, ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"])


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"hook": []}', '{"hook": {"args": "--engine podman"}}'),
        '{"hook": {"args": ["x", "--engine"], "timeout": "1"}}',
        '{"hook": {"args": ["x", "--engine", 1], "timeout": true}}',
    ],
)
def test_an_upgrade_over_a_broken_json(tmp_path: Path, text: str) -> None:
    install(tmp_path)
    registered = tmp_path / HOOKS / "oci-bpf-hook.json"
    whole = registered.read_text()
    registered.write_text(text)
    assert install(tmp_path) == [("write", f"{HOOKS}/oci-bpf-hook.json")]
    assert registered.read_text() == whole
