"""`podman run` with the hook against the same without, on each runtime."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.support.engines import Runtime, processes_of, wait_for_end
from tests.support.podman import World
from tests.support.scratch import LAUNCHER

from .launcher import BARE, ENVIRONMENT, REQUEST
from .samples import Candidate, Group, measure

_HOOK_JSON: Final = Path(__file__).parents[2] / "hooks.d" / "oci-bpf-hook.json"
_BUDGET: Final = 1.15
# Seconds that what podman leaves running in the background may take to end.
_SETTLED: Final = 10


def podman(world: World, runtime: Runtime, *, rounds: int) -> Group:
    """`podman run --rm` of `true` in a user namespace, in this `world`."""

    def candidate(
        name: str,
        label: str,
        install: Callable[[World], None],
        annotations: dict[str, str],
        budget: float | None = None,
    ) -> Candidate:
        def run() -> float:
            install(world)
            return _run(world, runtime, annotations)

        def prepare(_stack: ExitStack) -> Callable[[], float]:
            return run

        return Candidate(name=name, label=label, prepare=prepare, budget=budget)

    _install(world)
    # A hook that did nothing would be a fast one.
    shown = ["grep", "-q", "delegate_cmds=map_create:prog_load:btf_load", "/proc/mounts"]
    done = world.run(runtime, annotations=REQUEST, command=shown)
    if done.returncode:
        raise RuntimeError(f"podman on {runtime} gives no delegated bpffs: {done.stderr}")
    return measure(
        f"podman-{runtime}",
        f"podman run on {runtime}",
        [
            candidate("without", "no hook, no annotation", World.remove_hooks, {}),
            candidate("hook", "the hook, a request mounted", _install, REQUEST, _BUDGET),
            candidate("bare", "the bare interpreter as hook", _install_bare, REQUEST),
        ],
        rounds=rounds,
    )


def _install(world: World) -> None:
    world.remove_hooks()
    world.install_hook(LAUNCHER, _HOOK_JSON)


def _install_bare(world: World) -> None:
    world.remove_hooks()
    config = json.loads(_HOOK_JSON.read_text(encoding="utf-8"))
    env = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    config["hook"] |= {"path": BARE[0], "args": list(BARE), "env": env}
    (world.hooks_dir / "bare.json").write_text(json.dumps(config), encoding="utf-8")


def _run(world: World, runtime: Runtime, annotations: dict[str, str]) -> float:
    # conmon's clean-up of the last container goes on behind podman's back.
    for pid in processes_of(world.directory):
        wait_for_end(pid, _SETTLED)
    start = time.perf_counter_ns()
    done = world.run(runtime, annotations=annotations, command=["true"])
    end = time.perf_counter_ns()
    if done.returncode:
        raise RuntimeError(f"podman run on {runtime}: {done.stderr}")
    return (end - start) / 1e6
