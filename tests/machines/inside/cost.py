"""What the guard costs, as ratios in one boot: `python -m tests.machines SUITE -k cost`.

Of no use in CI, where nothing is held by a clock.  What is timed is one command of bpf(2), again
and again, in turns with and without the guard; a ratio is that of the medians.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Final

from oci_bpf_hook.guard.lsm import load
from oci_bpf_hook.kernel import bpf as probe_bpf
from oci_bpf_hook.kernel import syscalls
from oci_bpf_hook.paths import GUARD

from . import bpf
from .cases import TOKENS, Context, on
from .container import as_root
from .guarded import SOCKET_FILTER, marked, trusted

# Left out where no module is named.
ON_REQUEST: Final = True
ROUNDS: Final = 5
LARGE: Final = 100_000
_MOV_R0: Final = bytes.fromhex("b700000000000000")
_EXIT: Final = bytes.fromhex("9500000000000000")


def _timed(call: Callable[[], object], times: int) -> float:
    """The median of the seconds that a call takes."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return median(taken)


def _load(code: bytes, *, token: bool = True) -> Callable[[], None]:
    through = bpf.token() if token else None

    def load_() -> None:
        loaded = bpf.prog_load(code, SOCKET_FILTER, token=through, log=False)
        assert not loaded.errno, loaded
        os.close(loaded.fd)

    return load_


def _work() -> dict[str, float]:
    """Each call's seconds, in a container, through a token of its own."""
    key = bytes(4)
    array = probe_bpf.map_create(probe_bpf.BPF_MAP_TYPE_ARRAY, bpf.token())
    found = {
        "large": _timed(_load(_MOV_R0 * (LARGE - 1) + _EXIT), 3),
        "small": _timed(_load(bpf.RETURN_0), 200),
        "map lookup": _timed(
            lambda: syscalls.bpf_map(syscalls.BPF_MAP_LOOKUP_ELEM, array, key, 4), 2000
        ),
        "map create": _timed(
            lambda: os.close(probe_bpf.map_create(probe_bpf.BPF_MAP_TYPE_ARRAY, None)), 200
        )
        if _may_create()
        else 0.0,
    }
    os.close(array)
    return found


def _may_create() -> bool:
    with suppress(OSError):
        os.close(probe_bpf.map_create(probe_bpf.BPF_MAP_TYPE_ARRAY, None))
        return True
    return False


def _without_a_token() -> dict[str, float]:
    """The seconds of a load by the host's root."""
    return {"small": _timed(_load(bpf.RETURN_0, token=False), 200)}


@on(*TOKENS)
def case_ratios(context: Context) -> dict[str, float]:
    """With the guard against without: a confined token's calls, others' tokens', and root's."""
    del context
    names = ("without", "confined", "others", "root without", "root")
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        with trusted() as container:
            taken["without"].append(as_root(container, _work))
        taken["root without"].append(_without_a_token())
        load.turn_on()
        taken["root"].append(_without_a_token())
        with marked() as container:
            taken["confined"].append(as_root(container, _work))
        with trusted() as container:
            taken["others"].append(as_root(container, _work))
        load.turn_off()
    ratios = {}
    for who, against in (("confined", "without"), ("others", "without"), ("root", "root without")):
        for what in taken[against][0]:
            base = median(one[what] for one in taken[against])
            if base:
                ratios[f"{who}, {what}"] = round(median(one[what] for one in taken[who]) / base, 3)
    assert not os.path.exists(GUARD)
    return ratios
