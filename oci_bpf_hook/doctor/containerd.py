"""Whether containerd takes what its configuration says of CRI, and the hook's drop-in with it.

containerd itself says so: it prints the configuration that it makes of all its files, and a warning
for each key that it ignores.
"""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from ..delegation.annotations import PREFIX
from ..install.containerd import CONFIG, DROP_IN
from .engines import Engine
from .finding import Finding, ok, problem, warning

_SECONDS = 10
# What it says of a key of version 2's plugin for CRI if it takes the files for version 3.
_IGNORED = re.compile(
    r'Ignoring unknown key.* key=(?:"([^"]+)"|(\S+)) plugin=io\.containerd\.grpc\.v1\.cri$',
    re.MULTILINE,
)
_AGAIN = "oci-bpf-hook install --engine containerd && systemctl restart containerd"


def check(engines: Sequence[Engine]) -> Iterator[Finding]:
    """What containerd, if it is among the engines, makes of its configuration."""
    found = next((engine for engine in engines if engine.name == "containerd"), None)
    if found is None:
        return
    try:
        done = subprocess.run(  # noqa: S603
            [found.path, "config", "dump"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        runtimes = _runtimes(tomllib.loads(done.stdout))
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return
    if done.returncode == 0:
        yield from _judge(sorted({a or b for a, b in _IGNORED.findall(done.stderr)}), runtimes)


def _judge(ignored: Sequence[str], runtimes: Sequence[str]) -> Iterator[Finding]:
    there = os.path.exists(DROP_IN)
    if ignored:
        yield problem(
            "containerd-config",
            f"containerd ignores what its configuration says of CRI ({', '.join(ignored)}): "
            f"{CONFIG} and what it imports have different versions, and all of them have to have "
            f"that of {CONFIG}",
            _AGAIN if there else "containerd config dump 2>&1 >/dev/null | grep Ignoring",
        )
    elif runtimes:
        names = ", ".join(runtimes)
        yield ok("containerd-config", f"pods with the runtime {names} can ask by annotations")
    elif there:
        yield warning(
            "containerd-config",
            f"{DROP_IN} has no effect, because {CONFIG} doesn't import it, or has another version",
            f"grep -E '^(version|imports)' {CONFIG} {DROP_IN}; {_AGAIN}",
        )


def _runtimes(config: dict[str, Any]) -> list[str]:
    """The names of the runtimes whose pods' annotations containerd passes on to the hook."""
    found: Any = config
    for key in ("plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return []
    return sorted(
        name
        for name, runtime in found.items()
        if isinstance(runtime, dict)
        and any(str(one).startswith(PREFIX) for one in runtime.get("pod_annotations") or ())
    )
