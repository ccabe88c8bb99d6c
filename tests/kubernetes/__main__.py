"""containerd of a Debian with this tree's NRI plugin, and pods that ask it for a delegation.

Debian sid's containerd has NRI on, and trixie's is the oldest one that can be had.  As with
tests.docker a root file system is made, which takes a minute and some 500 MB, and is gone
afterwards: `python -m tests.kubernetes [SUITE [DIRECTORY]]`.  With the name of a directory it is
made there, stays, and is taken from there the next time.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from tests.docker.__main__ import enter, make

PACKAGES = (
    *("containerd", "runc", "crun", "mount", "passwd", "containernetworking-plugins", "iproute2"),
    *("python3", "python3-yaml", "python3-jsonschema", "python3-grpcio"),
)


def main() -> int:
    """Make what is missing, run it, and take away what isn't to stay."""
    words = sys.argv[1:]
    suite = words[0] if words else "sid"
    scratch = Path(tempfile.mkdtemp(prefix="oci-bpf-hook-kubernetes-"))
    try:
        root = Path(words[1]).absolute() if len(words) > 1 else scratch / "root"
        if not (root / "usr").exists():
            make(root, suite, PACKAGES)
        return enter(root, scratch, "tests/kubernetes/inside.py")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
