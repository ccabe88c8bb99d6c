"""The command line: a line for each object whose advice is wrong, and the figure."""

import sys
import tempfile
from pathlib import Path

from .build import build
from .truth import truth


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="obh-corpus-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        found = truth(build(directory))
    for verdict in found.verdicts:
        if not verdict.right or verdict.capabilities:
            print(verdict)
    print(f"this kernel loads nothing of {', '.join(found.refused)}")
    print(found)
    return 0 if found.right == found.tried else 1


if __name__ == "__main__":
    sys.exit(main())
