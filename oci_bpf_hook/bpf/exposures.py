"""Finds what a container reaches beyond itself through its delegation, and what to do about it.

`inspect` and its page, `doctor`, and the checks of the policy all report what this finds.
"""

from ..values import Value
from .names import PROGS
from .type_facts import (
    CGROUP,
    CONFINE,
    HOST,
    HOST_CGROUP,
    HOST_NETWORK,
    NETWORK,
    REACHES_BEYOND,
    UNCONFINED,
    program_reach,
    reach,
    why,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Exposure(Value):
    """A way out of the container.

    `names` are the delegated types that open it, `what` says what they can do, and `fix` what to do
    about that.
    """

    __slots__ = ("code", "fix", "names", "what")
    code: str
    names: tuple[str, ...]
    what: str
    fix: str


def exposures(
    given: "Mapping[str, Iterable[str]]", *, confined: bool, host_network: bool, host_cgroup: bool
) -> "Iterator[Exposure]":
    """What a container reaches beyond itself if it is `given` these names, by their options."""
    programs = [(name, program_reach(name)) for name in given.get(PROGS.option, ())]
    network = tuple(name for name, far in programs if far == NETWORK)
    if host_network and network:
        yield Exposure(
            code=HOST_NETWORK,
            names=network,
            what="attach to the host's network, which the container or its user shares, and see "
            "and change its traffic",
            fix="podman run --network bridge ...",
        )
    cgroups = tuple(name for name, far in programs if far == CGROUP)
    if host_cgroup and cgroups:
        yield Exposure(
            code=HOST_CGROUP,
            names=cgroups,
            what="attach to other cgroups than the container's, which it or its user can see",
            fix="podman run --cgroupns private ...",
        )
    yield from _beyond(given, confined=confined)


def _beyond(given: "Mapping[str, Iterable[str]]", *, confined: bool) -> "Iterator[Exposure]":
    host = {
        option: [name for name in names if reach(option, name, confined=confined) == HOST]
        for option, names in given.items()
    }
    every = tuple(dict.fromkeys(name for names in host.values() for name in names))
    if not every:
        return
    # If nothing confines the programs, that is reason enough, whatever their types are for.
    loose = [] if confined else host.get(PROGS.option, [])
    said = [UNCONFINED] if loose else []
    said += dict.fromkeys(why(name) for name in every if name not in loose)
    yield Exposure(
        code=REACHES_BEYOND,
        names=every,
        what="; ".join(said),
        fix=_fix(host),
    )


def _fix(host: "Mapping[str, list[str]]") -> str:
    """What to do about names that reach the HOST; the guard confines only some of them."""
    never = {
        option: [name for name in names if reach(option, name, confined=True) == HOST]
        for option, names in host.items()
    }
    left = list(dict.fromkeys(name for names in never.values() for name in names))
    if not left:
        return CONFINE
    options = " and ".join(option for option, names in never.items() if names)
    without = f"leave {', '.join(left)} out of {options}"
    if never == host:
        return f"{without}, if nothing in it needs them"
    return f"{without}, and {CONFINE}"
