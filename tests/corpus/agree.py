"""Whether record says what advise says, of every object in the corpus.

    python -m tests.corpus.agree

as root: a line for each object of which they don't, and the figure.
"""

import sys
import tempfile
from pathlib import Path

from oci_bpf_hook.advise.needs import CAPABILITY, Needs
from oci_bpf_hook.recording.learn import learn
from oci_bpf_hook.recording.recording import from_json
from tests.support import engines, policy, recorder
from tests.support.consumer import library
from tests.support.tokens import Loads

from .build import build
from .check import KERNEL, Whole, advised, on_the_host

_LOADER = """
import sys
sys.path.insert(0, sys.argv[1])
import load
libbpf = load.Libbpf(sys.argv[2])
print(load.load(libbpf, sys.argv[3], skip=sys.argv[4:])["result"])
"""
_CONSUMER = str(Path(__file__).parents[1] / "consumer")


def recorded(whole: Whole) -> Needs:
    """What record says of loading an object as the host's root loads it."""
    words = (_CONSUMER, str(library()), str(whole.path), *sorted(whole.skip))
    done = recorder.record("/usr/bin/python3", "-ISBc", _LOADER, *words)
    return learn(from_json(done.recording, KERNEL.names), KERNEL.names)


def main() -> int:
    engines.enter_private_mounts()
    policy.allow_everything()
    tried = same = 0
    with (
        tempfile.TemporaryDirectory(prefix="obh-corpus-", dir="/tmp") as name,
        Loads(host=True) as host,
    ):
        directory = Path(name)
        directory.chmod(0o755)
        for path in build(directory):
            whole = on_the_host(host, path)
            if whole is None:
                continue
            tried += 1
            one, other = (
                {bit for bit in needs.bits if bit[0] != CAPABILITY}
                for needs in (advised([whole]), recorded(whole))
            )
            same += one == other
            if one != other:
                print(f"{path.stem}: advise alone {one - other}, record alone {other - one}")
    print(f"advise and record say the same of {same} of {tried} objects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
