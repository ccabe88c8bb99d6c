"""A machine: QEMU with one of Debian's kernels, which runs cases and powers off.

Emulated in software, whatever the host: hardware virtualisation isn't everywhere where tests run,
and what is tested is the same.  It has no disk and no network; the results come over its second
serial port.

Its clock counts instructions.  So no deadline in it passes because the host is busy, nothing waits
for long while it is idle, and what a case measures is the same each time.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from .inside.cases import cases
from .kernels import Kernel

QEMU: Final = "qemu-system-x86_64"
# Seconds in which a machine has powered off, however busy the host is.
LIMIT: Final = 600.0
# An oops ends it rather than leave a case waiting, and there is nothing to mitigate.  The tests of
# the kernel's own cryptography would be a third of its boot.
_COMMAND_LINE: Final = (
    "console=ttyS0 mitigations=off nokaslr quiet oops=panic panic=1 cryptomgr.notests=1"
)
# svm: nested, what software can't emulate.
_OPTIONS: Final = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    *("-machine", "pc", "-accel", "tcg", "-cpu", "Nehalem,-svm", "-smp", "1", "-m", "1G"),
    # An instruction takes 4 ns; the host needs about as long for it.
    *("-icount", "shift=2,sleep=off"),
)
_TAIL: Final = 40


class Result(NamedTuple):
    """What became of a case: `passed`, `failed`, `unfinished` or `missing`, why, and its value.

    The seconds are those of the machine's clock.
    """

    outcome: str
    detail: str
    value: Any
    seconds: float


class Report(NamedTuple):
    """What a machine has said: the cases' results, the kernel's taint, None if it came to no end.

    `console` is what the kernel printed, and why QEMU was ended if it was.
    """

    results: dict[str, Result]
    tainted: int | None
    console: str

    def tail(self) -> str:
        """The console's last lines, for somebody who asks why."""
        return "\n".join(self.console.splitlines()[-_TAIL:])


class Machine:
    """A machine on one kernel, which boots each time that it runs something."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def run(self, initramfs: Path, modules: Iterable[str], *, limit: float = LIMIT) -> Report:
        """Boot, run what the initramfs holds, and report on these modules' cases."""
        with tempfile.TemporaryDirectory(prefix="oci-bpf-hook-machine-", dir="/tmp") as name:
            console, results = Path(name, "console"), Path(name, "results")
            ended = self._boot(initramfs, console, results, limit)
            lines = _lines(results)
            printed = console.read_text(errors="replace") if console.exists() else ""
        found = {line["case"]: _result(line) for line in lines if "case" in line}
        missing = Result("missing", "", None, 0.0)
        for module in modules:
            for case in cases(module, self.kernel.suite):
                found.setdefault(case, missing)
        tainted = [line["tainted"] for line in lines if "tainted" in line]
        return Report(found, tainted[0] if tainted else None, printed + ended)

    def _boot(self, initramfs: Path, console: Path, results: Path, limit: float) -> str:
        command: list[str | Path] = [
            # A worker of pytest-xdist that is interrupted is killed, and can't end it.
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *(QEMU, *_OPTIONS, "-kernel", self.kernel.path, "-initrd", initramfs),
            *("-append", f"{_COMMAND_LINE} SUITE={self.kernel.suite}"),
            *("-serial", f"file:{console}", "-serial", f"file:{results}"),
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                _, errors = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                return f"\n{QEMU} was ended: it still ran after {limit:g} seconds\n"
            finally:
                process.kill()
        return f"\n{QEMU}: exit code {process.returncode}\n{errors}" if process.returncode else ""


def _lines(results: Path) -> list[dict[str, Any]]:
    """The lines that are whole; the last may not be, and its case is unfinished then."""
    found = []
    for line in results.read_text(errors="replace").splitlines() if results.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _result(line: dict[str, Any]) -> Result:
    detail, value, seconds = line.get("detail", ""), line.get("value"), line.get("seconds", 0.0)
    return Result(line["outcome"], detail, value, seconds)
