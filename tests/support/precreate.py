"""A configuration as podman makes it, and what the hook at precreate makes of it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.scratch import LAUNCHER, assert_failed, io, run_hook

ID = "5f3c" * 16
HOOK = {"path": str(LAUNCHER), "args": ["oci-bpf-hook"], "env": ["PATH=/bin"], "timeout": 15}
XDP = io(profile="xdp")
REFUSING = {"names": ["bpf", "acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}


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
