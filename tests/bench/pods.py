"""`oci-bpf-hook check` of all pods of a cluster, against the start of the command alone.

Processor time is measured, since it depends less on what else the machine does.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import yaml

from .launcher import compile_c
from .samples import Candidate, Group, Measured, group, measure, part, processor

_ROOT: Final = Path(__file__).parents[2]
_ENVIRONMENT: Final = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT)}
_COMMAND: Final = (sys.executable, "-m", "oci_bpf_hook")
_START: Final = "the command's start alone"
# How many pods, and how often the start they may take.
_BUDGETS: Final = {100: 3.0, 1000: 12.0}
_FEW, _MANY = _BUDGETS
# 40 MiB more than the start, which takes nearly 10.
_MEMORY_BUDGET: Final = 5.0


def _pod(number: int) -> dict[str, Any]:
    """A pod as people write it; all are alike but for their names, as those of a DaemonSet are."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"agent-{number}",
            "namespace": "monitoring",
            "labels": {"app": "agent"},
            "annotations": {
                "io.bpffs.delegate_cmds": "map_create,prog_load,btf_load",
                "io.bpffs.delegate_maps": "hash,array",
                "io.bpffs.delegate_progs": "xdp",
                "io.bpffs.delegate_attachs": "xdp",
            },
        },
        "spec": {
            "hostUsers": False,
            "containers": [
                {
                    "name": "agent",
                    "image": "registry.example/agent:1",
                    "securityContext": {"capabilities": {"add": ["BPF", "NET_ADMIN"]}},
                    "resources": {"limits": {"cpu": "100m", "memory": "128Mi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }


def _files(directory: Path) -> dict[str, Path]:
    """A List of each number of pods, as kubectl prints it in each format."""
    found: dict[str, Path] = {}
    for count in _BUDGETS:
        data = {"apiVersion": "v1", "kind": "List", "items": [_pod(one) for one in range(count)]}
        texts = {"yaml": yaml.safe_dump(data), "json": json.dumps(data, indent=4)}
        for form, text in texts.items():
            path = directory / f"{count}.{form}"
            path.write_text(text)
            found[f"{form}-{count}"] = path
    return found


def pods(directory: Path, *, rounds: int, compiler: bool) -> list[Group]:
    """The processor time, its growth, and with a `compiler` the peak memory."""
    files = _files(directory)
    times = _times(files, rounds=rounds)
    groups = [times, _growth(times, "yaml"), _growth(times, "json")]
    if compiler:
        groups.append(_memory(directory, files, rounds=part(10, rounds) + 1))
    return groups


def _candidates(
    files: Mapping[str, Path],
    run: Callable[[Sequence[str]], float],
    budgets: Mapping[str, float],
) -> list[Candidate]:
    def candidate(name: str, label: str, arguments: Sequence[str]) -> Candidate:
        def prepare(_stack: ExitStack) -> Callable[[], float]:
            return lambda: run([*_COMMAND, *arguments])

        return Candidate(name=name, label=label, prepare=prepare, budget=budgets.get(name))

    labels = {name: _label(name) for name in files}
    return [
        candidate("start", _START, ["--version"]),
        *(candidate(name, labels[name], ["check", "--file", str(files[name])]) for name in files),
    ]


def _label(name: str) -> str:
    form, _, count = name.partition("-")
    return f"{int(count):,} pods as {form.upper()}"


def _times(files: Mapping[str, Path], *, rounds: int) -> Group:
    budgets = {name: _BUDGETS[int(name.partition("-")[2])] for name in files}

    def run(argv: Sequence[str]) -> float:
        return processor(argv, stdin=b"", env=_ENVIRONMENT)

    candidates = _candidates(files, run, budgets)
    return measure("pods", "oci-bpf-hook check of pods, processor time", candidates, rounds=rounds)


def _growth(times: Group, form: str) -> Group:
    """How much more than a few pods many take, beyond the start; linear is as many times more."""
    rows = {row.name: row.samples for row in times.rows}
    beyond: dict[str, list[float]] = {}
    for count in _BUDGETS:
        pairs = zip(rows[f"{form}-{count}"], rows["start"], strict=True)
        beyond[f"{form}-{count}"] = [max(whole - start, 0.001) for whole, start in pairs]
    few, many = beyond
    measured = [
        Measured(name=few, label=f"{_label(few)}, beyond the start"),
        Measured(name=many, label=f"{_label(many)}, beyond the start", budget=_MANY / _FEW),
    ]
    return group(f"pods-growth-{form}", f"Growth with the number of pods, {form}", measured, beyond)


def _memory(directory: Path, files: Mapping[str, Path], *, rounds: int) -> Group:
    peak = str(compile_c(Path(__file__).parent / "peak.c", directory))

    def run(argv: Sequence[str]) -> float:
        done = subprocess.run(
            [peak, *argv], capture_output=True, check=True, env=_ENVIRONMENT, text=True
        )
        return int(done.stdout) / 1024

    budgets = {name: _MEMORY_BUDGET for name in files if str(_MANY) in name}
    many = {name: path for name, path in files.items() if name in budgets}
    return measure(
        "pods-memory",
        "Peak resident memory of check",
        _candidates(many, run, budgets),
        rounds=rounds,
        unit="MiB",
    )
