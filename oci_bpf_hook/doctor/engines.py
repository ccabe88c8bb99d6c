"""The engines and runtimes that are installed: versions, known faults, and where they read hooks.

A fault that another program is known to have can only be told by its version.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any

from ..oci.seccomp import BASES
from ..oci.seccomp_profile import check as check_profile
from ..running.programs import find, is_place_of
from ..text.strict_json import load_json
from ..values import Value
from . import directories
from .directories import SHARED
from .finding import Finding, ok, problem, warning

_PROGRAMS = ("podman", "crio", "containerd", "dockerd", "crun", "runc", "youki")
_VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")
_SECONDS = 10


class Engine(Value):
    """A program that runs containers: its `path` and its `version` as numbers, () if unknown."""

    __slots__ = ("name", "path", "version")
    name: str
    path: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version)) or 'of an unknown version'}"


class _Fault(Value):
    """What `program` does wrong from version `first` on, until version `fixed`."""

    __slots__ = ("first", "fixed", "program", "text")
    program: str
    first: tuple[int, ...]
    fixed: tuple[int, ...]
    text: str


_FAULTS = (
    _Fault(
        program="crun",
        first=(1, 8),
        fixed=(1, 30),
        text="it tells hooks a wrong bundle if a container has a user namespace and a device (crun "
        "issue 2025); this hook finds the root filesystem without it",
    ),
    _Fault(
        program="podman",
        first=(0,),
        fixed=(4, 6),
        text="it gives a container its image's annotations, so the image's author can ask for BPF; "
        "the policy decides",
    ),
)


def installed() -> list[Engine]:
    """The engines and runtimes that are installed, engines first; a user's may be in their PATH.

    Root doesn't search PATH: sudo(8) may have passed on a user's.
    """
    look = shutil.which if os.geteuid() else find
    found = []
    for name in _PROGRAMS:
        path = look(name)
        if path:
            found.append(Engine(name=name, path=path, version=_version(path)))
    return found


def at(path: str, name: str) -> Engine | None:
    """The engine or runtime `name` that is installed at `path`; None if it isn't there.

    `path` may come from anybody: it is compared, and run only if it is where root's packages are.
    """
    if not is_place_of(path, name):
        return None
    return Engine(name=name, path=path, version=_version(path))


def _version(path: str) -> tuple[int, ...]:
    """The version that the program at `path` prints; () if it prints none."""
    try:
        done = subprocess.run(  # noqa: S603
            [path, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = _VERSION.search(done.stdout)
    return tuple(map(int, match[0].split("."))) if match else ()


def faults(engine: Engine) -> list[str]:
    """What `engine` is known to do wrong, in sentences."""
    return [
        fault.text
        for fault in _FAULTS
        if fault.program == engine.name and fault.first <= engine.version < fault.fixed
    ]


def check(engines: list[Engine]) -> Iterator[Finding]:
    """The installed engines, with their faults, and podman's seccomp profile."""
    if not engines:
        yield warning(
            "engines", "neither podman, CRI-O, containerd, Docker nor a runtime is installed"
        )
    for engine in engines:
        known = "".join(f"; {text}" for text in faults(engine))
        yield ok("engines", f"{engine} ({engine.path}){known}")
    if any(engine.name in ("podman", "crio") for engine in engines):
        yield from _seccomp()


def _seccomp() -> Iterator[Finding]:
    """Whether the profile that podman and CRI-O use lets bpf(2) through with CAP_BPF."""
    path = next((path for path in BASES if os.path.exists(path)), None)
    if path is None:
        return  # The profile of their release is built in.
    try:
        profile = check_profile(load_json(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        yield problem("engine-seccomp", f"{path} isn't a seccomp profile: {error}")
        return
    if any(map(_lets_bpf_through, profile.get("syscalls") or ())):
        yield ok("engine-seccomp", f"{path} lets bpf(2) through with CAP_BPF")
        return
    yield warning(
        "engine-seccomp",
        f"{path} lets bpf(2) through only with CAP_SYS_ADMIN, so bpf(2) fails with EPERM in a "
        "container with CAP_BPF; give it another profile, by --security-opt seccomp=FILE",
        f"oci-bpf-hook seccomp --output {BASES[0]}",
    )


def _lets_bpf_through(rule: Mapping[str, Any]) -> bool:
    caps = (rule.get("includes") or {}).get("caps") or []
    return (
        "bpf" in (rule.get("names") or [rule.get("name")])
        and rule["action"] == "SCMP_ACT_ALLOW"
        and (not caps or "CAP_BPF" in caps)
    )


def hooks_directories(engine: Engine) -> list[str]:
    """Where `engine` reads hooks from; later ones win.  [] for an engine that reads none."""
    if engine.name == "podman":
        return directories.of_podman()
    if engine.name == "crio":
        files = ["/etc/crio/crio.conf", *sorted(glob("/etc/crio/crio.conf.d/*"))]
        return directories.setting(files, ("crio", "runtime", "hooks_dir")) or [SHARED]
    return []
