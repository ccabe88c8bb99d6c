"""What a container's programs depend on: the library that they use, and the runtime."""

import json
import re
from collections.abc import Iterator

from ..container.namespaces import Process
from ..files import read_file
from ..oci.state import CONFIG_MAX
from ..running.containers import Running
from ..running.process import libraries
from .engines import at, faults
from .finding import Finding, problem, warning

_LIBBPF = re.compile(r"/libbpf\.so\.(\d+)\.(\d+)\.(\d+)$")
_LIBBPF_WITH_TOKENS = (1, 4)


def check(one: Running, process: Process) -> Iterator[Finding]:
    """What there is to say about the container `one` and its `process`."""
    yield from _library(process)
    yield from _runtime(one)


def _library(process: Process) -> Iterator[Finding]:
    try:
        mapped = libraries(process)
    except OSError:
        return
    for path in sorted(mapped):
        match = _LIBBPF.search(path)
        if match and tuple(map(int, match.groups())) < _LIBBPF_WITH_TOKENS:
            yield problem(
                "library",
                f"it uses {path.rpartition('/')[2]}, but only libbpf 1.4 and later know tokens",
                "build the program with libbpf 1.4 or later, or cilium/ebpf 0.22 or later",
            )


def _runtime(one: Running) -> Iterator[Finding]:
    """crun's wrong bundle, which confuses other hooks than this one."""
    crun = at(one.runtime, "crun") if one.runtime else None
    if crun is None or not _has_device(one):
        return
    for text in faults(crun):
        yield warning(
            "crun-device",
            f"the container has a device, and {text}",
            "update crun to 1.30 or later, if other hooks fail",
        )


def _has_device(one: Running) -> bool:
    try:
        text = read_file(f"/run/crun/{one.id}/config.json", CONFIG_MAX)
        return bool(json.loads(text)["linux"]["devices"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
