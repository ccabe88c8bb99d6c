"""Run the cases of the modules named, and report each.

    /usr/bin/python3 -m tests.machines.inside RESULTS MODULE...

RESULTS gets a line of JSON for each case as it begins and as it ends, and a last one that says how
the kernel is.  The suite that the kernel is from is in the environment, where the kernel puts what
it doesn't know on its command line.
"""

import functools
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TextIO

from oci_bpf_hook.bpf.btf_types import Types

from .cases import Case, Context, cases


def main() -> None:
    """Run them in their order, whatever becomes of each."""
    # A kernel's types stay as they are.  The guard looks for hundreds of them each time that it is
    # loaded, which takes a machine a second.
    Types.named = functools.cache(Types.named)  # type: ignore[method-assign]
    results, *modules = sys.argv[1:]
    context = Context(os.environ["SUITE"], os.uname().release, Path("/files"))
    with open(results, "w", encoding="utf-8", buffering=1) as out:
        for module in modules:
            try:
                found = cases(module, context.suite)
            except Exception:  # noqa: BLE001  Whatever is wrong with a module, others are to run.
                _say(out, case=module, outcome="failed", detail=traceback.format_exc())
                continue
            for name, case in found.items():
                _run(out, name, case, context)
        _say(out, tainted=int(Path("/proc/sys/kernel/tainted").read_text()))


def _run(out: TextIO, name: str, case: Case, context: Context) -> None:
    _say(out, case=name, outcome="unfinished")
    start = time.monotonic()
    try:
        value = case(context)
    except Exception:  # noqa: BLE001  That is what a case that fails does.
        outcome: dict[str, object] = {"outcome": "failed", "detail": traceback.format_exc()}
    else:
        outcome = {"outcome": "passed", "value": value}
    _say(out, case=name, seconds=round(time.monotonic() - start, 3), **outcome)


def _say(out: TextIO, **words: object) -> None:
    out.write(json.dumps(words) + "\n")


if __name__ == "__main__":
    main()
