"""Which modules the hook's launcher has loaded once it is done, in whatever way it loads them."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from .scratch import LAUNCHER, LIMIT

# Runs the launcher as Python would, and says at the end of each of its processes what is there.
_RUN = """
import posix, sys
end = posix._exit
def tell(code):
    posix.write(2, (" ".join(sys.modules) + "\\n").encode())
    end(code)
posix._exit = tell
del sys.argv[0]
if not sys.argv:
    tell(0)
with open(sys.argv[0]) as file:
    code = compile(file.read(), sys.argv[0], "exec")
exec(code, {"__name__": "__main__", "__file__": sys.argv[0]})
"""


def loaded(*arguments: str, stdin: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """What the launcher with these arguments and that on its standard input has loaded.

    Our modules, by their names below the package, and the others, beside those that a bare
    interpreter has.
    """
    ours: set[str] = set()
    others: set[str] = set()
    for name in _modules(str(LAUNCHER), *arguments, stdin=stdin) - _modules(stdin={}):
        package, _, rest = name.partition(".")
        if package != "oci_bpf_hook":
            others.add(name)
        # The package, and its folders, aren't modules with anything in them.
        elif rest and LAUNCHER.parents[1].joinpath(*name.split(".")).with_suffix(".py").exists():
            ours.add(rest)
    return ours, others


def _modules(*arguments: str, stdin: Mapping[str, Any]) -> set[str]:
    done = subprocess.run(
        ["/usr/bin/python3", "-ISE", "-c", _RUN, *arguments],
        input=json.dumps(stdin),
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    return set(done.stderr.split())
