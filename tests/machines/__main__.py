"""Boot Debian's kernels and print what became of each case.

    python -m tests.machines [SUITE...] [-k MODULE]

SUITE is bookworm, trixie, sid or experimental; without one it is all of them, one after the other.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .files import FILES
from .initramfs import build
from .inside.cases import modules
from .kernels import SUITES, MissingError, kernels
from .machine import Machine, Report


def main() -> int:
    """The exit code: 0 if every case has passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.machines")
    parser.add_argument("suites", metavar="SUITE", nargs="*", help=", ".join(SUITES))
    parser.add_argument(
        "-k", dest="modules", metavar="MODULE", action="append", choices=modules(on_request=True)
    )
    options = parser.parse_args()
    if unknown := set(options.suites).difference(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    chosen = options.modules or modules()
    try:
        found = kernels(options.suites or SUITES)
    except MissingError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    good = True
    with tempfile.TemporaryDirectory(prefix="oci-bpf-hook-initramfs-", dir="/tmp") as directory:
        initramfs = Path(directory, "initramfs")
        initramfs.write_bytes(build(chosen, {name: make() for name, make in FILES.items()}))
        for kernel in found.values():
            start = time.monotonic()
            report = Machine(kernel).run(initramfs, chosen)
            sys.stdout.write(f"{kernel.suite} {kernel.release}: {time.monotonic() - start:.1f} s\n")
            good &= _print(report)
    return 0 if good else 1


def _print(report: Report) -> bool:
    bad = {name for name, result in report.results.items() if result.outcome != "passed"}
    for name, result in report.results.items():
        value = "" if result.value is None else f"  {str(result.value).strip()}"
        sys.stdout.write(f"  {result.outcome:10} {result.seconds:6.2f} s  {name}{value}\n")
        sys.stdout.write("".join(f"    {line}\n" for line in result.detail.splitlines()))
    if report.tainted != 0:
        sys.stdout.write(f"  the kernel's taint is {report.tainted}\n")
    if bad or report.tainted != 0:
        sys.stdout.write(report.tail() + "\n")
    return not bad and report.tainted == 0


if __name__ == "__main__":
    sys.exit(main())
