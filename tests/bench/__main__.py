"""The command line: measures, prints the table, writes the JSON and the plot."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support.engines import RUNTIMES, TOOLS, enter_private_mounts, missing_tools
from tests.support.podman import World
from tests.support.policy import allow_everything

from . import plot, report
from .advise import advise
from .broker import broker
from .command import command
from .engine import podman
from .launcher import HERE, launcher, memory
from .pods import pods
from .samples import ROUNDS, Group
from .shim import shim

PICTURE: Final = HERE.parents[1] / "docs" / "pictures" / "benchmark.png"
_GROUPS: Final = ("launcher", "command", "podman", "broker", "memory", "advise", "shim", "pods")
_EPILOG: Final = """\
A ratio is that of two figures of one round, and what is shown is the median of all rounds with its
quartiles; "over" means that this median is over the budget.  The exit code is 0 even then: on a
busy machine it says little.  The mounts are made in a private mount namespace, and podman has
storage and configuration of its own in /tmp.  With fewer rounds than by default the largest policy
is smaller, and the broker makes fewer grants before the one that is measured.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="What the hook costs in front of a container's start; needs root.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=ROUNDS,
        metavar="N",
        help=f"how often to run each (default: {ROUNDS})",
    )
    parser.add_argument(
        "--only",
        choices=_GROUPS,
        action="append",
        help="measure that alone; may be given again (default: everything)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=HERE / "results.json",
        metavar="FILE",
        help="where the results go (default: tests/bench/results.json)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        default=PICTURE,
        metavar="FILE",
        help="where the plot goes (default: docs/pictures/benchmark.png); it takes matplotlib",
    )
    parser.add_argument("--no-plot", action="store_true", help="no plot")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds: quartiles take 2 rounds or more")
    if os.geteuid() != 0:
        parser.error("it makes namespaces and mounts, and so takes root")
    return arguments


def _progress(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


def _measure(
    wanted: tuple[str, ...], rounds: int, directory: Path, left_out: list[str]
) -> tuple[list[Group], str | None]:
    """What this host can measure of the `wanted` groups, and podman's storage driver."""
    groups: list[Group] = []
    storage: str | None = None

    def has(what: str, *tools: str) -> bool:
        """Whether this host can measure that, which is then begun."""
        missing = missing_tools(tools)
        if missing:
            left_out.append(f"{what}: {', '.join(missing)} missing")
        else:
            _progress(what)
        return not missing

    compiler = not missing_tools(["cc"])
    if "launcher" in wanted:
        _progress("the launcher")
        groups.append(launcher(directory, rounds=rounds, compiler=compiler))
        if not compiler:
            left_out.append("the floor in C: cc is missing")
    if "command" in wanted:
        _progress("the command")
        groups.append(command(directory, rounds=rounds))
    if "podman" in wanted and has("podman", *TOOLS):
        with World() as world:
            storage = world.storage_driver
            for runtime in RUNTIMES:
                _progress(f"podman on {runtime}")
                groups.append(podman(world, runtime, rounds=rounds))
    if "broker" in wanted and has("the broker", "cc"):
        groups += broker(directory, rounds=rounds)
    if "memory" in wanted and has("memory", "cc"):
        groups.append(memory(directory, rounds=rounds))
    if "advise" in wanted and has("advise", "execsnoop", "xdp-loader"):
        groups.append(advise(directory, rounds=rounds))
    if "shim" in wanted and has("the shim", "cc", "clang", "ld.lld"):
        groups += shim(directory, rounds=rounds)
    if "pods" in wanted:
        _progress("check of pods")
        groups += pods(directory, rounds=rounds, compiler=compiler)
    return groups, storage


def main() -> int:
    arguments = _arguments()
    enter_private_mounts()
    # Where nothing is said about it the policy isn't what is measured.
    allow_everything()
    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="obh-bench-", dir="/tmp") as directory:
        groups, storage = _measure(
            tuple(arguments.only or _GROUPS), arguments.rounds, Path(directory), left_out
        )
    print(report.table(groups))
    for line in left_out:
        print(f"left out: {line}")
    results = report.as_json(groups, rounds=arguments.rounds, left_out=left_out, storage=storage)
    report.write_json(results, arguments.json)
    if not arguments.no_plot and groups:
        try:
            plot.draw(results, arguments.plot)
        except ModuleNotFoundError as error:
            print(f"no plot: {error}; tests/bench/requirements.txt has what it takes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
