"""Makes the Subject of whoever asks elsewhere than in the hook: there the sources are others.

The broker has its peer (`of_peer`), the NRI plugin an engine's word (`of_pod`), and a command a
running container, a sandbox, or what a file or the command line says.
"""

from .origin import ENGINE, origin
from .subject import CLAIMS, ENGINES, NO_CLAIMS, NO_GLOBS, Subject, identify, make_subject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Any

    from .container import Container


_CLAIMED = frozenset((*CLAIMS, "annotations", "engine"))


def set_by_engine(engine: str) -> tuple[str, ...]:
    """The CLAIMS that the hook is told if `engine` runs it."""
    return tuple(key for key in CLAIMS if origin(key, engine) == ENGINE)


def claims(
    annotations: "Mapping[str, str]", find_name: "Callable[[], str | None]"
) -> "dict[str, str | None]":
    """The names that the hook tells the broker for a container with these `annotations`."""
    found = identify(annotations, None)
    return {**found, "container": found["container"] or find_name()}


def of_peer(
    claimed: "Mapping[str, str]",
    user: int,
    *,
    engine: str | None,
    uses: "Collection[str]",
    groups: "Callable[[int], Iterable[int]]",
    shared: "Callable[[], tuple[bool, bool]]",
) -> Subject:
    """Who asks the broker: the kernel says which `user`, and the rest is only `claimed`.

    `groups` finds the user's groups, and `shared` what the container shares with the host; they are
    called only if the policy's rules are about that (`uses`).  `engine` is the policy's.
    """
    looks = not {"host_network", "host_cgroup"}.isdisjoint(uses)
    return make_subject(
        {key: claimed.get(key) for key in CLAIMS},
        annotations={},
        engine=engine,
        user=user,
        group=tuple(groups(user)) if "group" in uses else (),
        rootless=user != 0,
        shared=shared if looks else _unseen,
        claimed=_CLAIMED,
    )


def of_pod(
    names: "Mapping[str, str | None]",
    annotations: "Mapping[str, str]",
    container: "Container",
    *,
    engine: str | None,
    uses: "Collection[str]",
) -> Subject:
    """Who asks if root's `engine` itself names the container, the pod, and so on.

    The `annotations` are the pod's, which its author writes.
    """
    return make_subject(
        names,
        annotations=annotations,
        engine=engine,
        user=container.owner(),
        group=(0,),
        rootless=False,
        shared=lambda: (
            container.has_host_network() if "host_network" in uses else None,
            container.sees_host_cgroups(None) if "host_cgroup" in uses else None,
        ),
    )


def of_running(
    names: "Mapping[str, str | None]",
    user: int,
    *,
    engine: str | None,
    vouched: bool,
    default: str | None,
    groups: "Callable[[int], Iterable[int]]",
    shared: "Callable[[], tuple[bool, bool]]",
) -> Subject:
    """Who gets what root delegates to a running container of the `user`.

    The container's `names` and its `engine` are used only if the user is root or an engine of
    root's has `vouched` for them; otherwise it has no names, and `default` is its engine.
    """
    believed = vouched or user == 0
    return make_subject(
        {key: names.get(key) if believed else None for key in CLAIMS},
        annotations={},
        engine=engine if believed and engine in ENGINES else default,
        user=user,
        group=tuple(groups(user)),
        rootless=user != 0,
        shared=shared,
    )


def of_recording(user: int, groups: "Iterable[int]", container: "Container") -> Subject:
    """Who records a program in a sandbox, the `container`: root, for the `user` who called it."""
    return make_subject(
        {},
        annotations={},
        engine=None,
        user=user,
        group=tuple(groups),
        rootless=False,
        shared=lambda: (container.has_host_network(), container.sees_host_cgroups("/")),
    )


def of_description(
    annotations: "Mapping[str, str]",
    engine: str | None,
    *more: "Mapping[str, Any]",
    inside: bool = False,
) -> Subject:
    """Who would ask, for a command that is only told of a container.

    By default that is a container of root's that shares nothing with the host.  `more` are
    attributes that a file or a command line gives, and the Subject's `globs`; later ones win.

    For a rootless engine, or if the hook runs `inside` the container, the broker decides.  Then all
    that doesn't come from the kernel is a claim, and it doesn't count that a CDI device asks.
    """
    said: dict[str, Any] = {"user": 0, "group": (0,), "rootless": False}
    said |= {"host_network": False, "host_cgroup": False, "cdi": None, "globs": NO_GLOBS}
    said |= identify(annotations, engine)
    for one in more:
        said |= one
    broker = said["rootless"] or inside
    return make_subject(
        {key: said[key] for key in CLAIMS},
        annotations={} if broker else annotations,
        engine=engine,
        cdi=None if broker else said["cdi"],
        user=said["user"],
        group=said["group"],
        rootless=said["rootless"],
        shared=lambda: (said["host_network"], said["host_cgroup"]),
        claimed=_CLAIMED if broker else NO_CLAIMS,
        globs=said["globs"],
    )


def _unseen() -> tuple[None, None]:
    """Nobody has looked at what the container shares with the host, because no rule is about it."""
    return None, None
