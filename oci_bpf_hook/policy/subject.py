"""Who asks: what a policy's rules may match, and who says so.

Whoever decides learns it from somewhere else: the hook from the container and its annotations, the
broker from its peer, a command from a running container, from a file or from its command line.
There is one constructor for each of these, and all of them end in the same record.

What a rule may match is only worth as much as whoever set it.  `origin` says who that is.
"""

from ..errors import USAGE, HookError, quote
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Any, Protocol

    class Container(Protocol):
        """What is asked of a container: one that is there, or one that is only proposed."""

        def owner(self) -> int:
            """The user who made its user namespace, by the host's ids."""

        def has_host_network(self) -> bool:
            """Whether its network namespace isn't its own."""

        def sees_host_cgroups(self, root: str | None) -> bool:
            """Whether it sees more of the cgroup tree than its own part."""


ADMINISTRATOR = "administrator"
KERNEL = "kernel"
ENGINE = "engine"
REQUESTER = "requester"

# The annotation in which an engine itself always sets an attribute, whatever the requester
# does: measured with a pod whose author tried to set each of them.  podman and Docker have
# none: --annotation overrides what podman sets.  podman tells a container's name otherwise.
_SET_BY = {
    "cri-o": {
        "container": "io.kubernetes.container.name",
        "image": "io.kubernetes.cri-o.ImageName",
        "namespace": "io.kubernetes.pod.namespace",
        "pod": "io.kubernetes.pod.name",
    },
    "containerd": {
        "container": "io.kubernetes.cri.container-name",
        "image": "io.kubernetes.cri.image-name",
        "namespace": "io.kubernetes.cri.sandbox-namespace",
        "pod": "io.kubernetes.cri.sandbox-name",
    },
    "podman": {},
    "docker": {},
}
ENGINES = tuple(_SET_BY)
# What an engine tells of a container, and what the broker's client can only claim.
CLAIMS = ("container", "image", "namespace", "pod")
# What is true of whatever is a user's (`_subject`).
OF_USERS = ("host_cgroup", "host_network", "rootless")
_FROM_KERNEL = ("group", "user", *OF_USERS)


def unnamed() -> str | None:
    """The name of a container where nothing but its annotations tells it."""
    return None


class Subject(Value):
    """Who asks.

    `engine` is the one that runs the hook, by the administrator's word, or None where that isn't
    said; `cdi` the device that asks, None for annotations.
    `user` and `group` are the host's ids; `rootless` is whether it is a user's own engine that asks
    by the broker.
    `host_network` and `host_cgroup` are whether the container shares these with the host, None
    where no rule asks and so nobody looked.
    `container`, `image`, `namespace` and `pod` are names, None where nobody tells them;
    `annotations` are what rules about annotations look at.
    `claimed` are the attributes that are only said by whoever asks: a rule that allows something
    never holds by one of these.
    `find_name` finds the container's name where `container` is None.
    """

    __slots__ = (
        *("annotations", "cdi", "claimed", "container", "engine", "find_name", "group"),
        *("host_cgroup", "host_network", "image", "namespace", "pod", "rootless", "user"),
    )
    annotations: "Mapping[str, str]"
    cdi: str | None
    claimed: frozenset[str]
    container: str | None
    engine: str | None
    find_name: "Callable[[], str | None]"
    group: tuple[int, ...]
    host_cgroup: bool | None
    host_network: bool | None
    image: str | None
    namespace: str | None
    pod: str | None
    rootless: bool
    user: int

    def named(self) -> "Subject":
        """The same with the container's name, for a refusal and its record.

        Where no rule is about names they aren't looked for: to find podman's takes time, and no
        container that gets what it asks for has to wait for that.
        """
        if self.container is not None:
            return self
        fields = {field: getattr(self, field) for field in self.__slots__}
        return Subject(**{**fields, "container": self.find_name()})

    def known(self) -> "dict[str, object]":
        """What a rule may match, by the names that rules have for it, but for the annotations.

        A device is only there if one asks, and what the container shares if somebody looked.
        """
        found: dict[str, object] = {"engine": self.engine}
        found |= {key: getattr(self, key) for key in CLAIMS}
        found |= {"cdi": self.cdi, "user": self.user, "group": self.group}
        found |= {"rootless": self.rootless}
        found |= {"host_network": self.host_network, "host_cgroup": self.host_cgroup}
        optional = ("cdi", "host_network", "host_cgroup")
        return {
            key: value for key, value in found.items() if value is not None or key not in optional
        }

    def by_broker(self) -> bool:
        """Whether it is the broker that decides."""
        return bool(self.claimed)

    def set_by(self, attribute: str) -> str:
        """Who says what the `attribute` is: ADMINISTRATOR, KERNEL, ...

        The broker has no engine's word for anything, only what its client claims.
        """
        who = origin(attribute, self.engine)
        return REQUESTER if self.by_broker() and who == ENGINE else who


def origin(attribute: str, engine: str | None) -> str:
    """Who sets `attribute` where `engine` runs the hook: ADMINISTRATOR, KERNEL, ..."""
    if attribute in ("cdi", "engine"):
        return ADMINISTRATOR
    if attribute in _FROM_KERNEL:
        return KERNEL
    if engine and attribute in _SET_BY[engine]:
        return ENGINE
    if engine == "podman" and attribute == "container":
        return ENGINE
    return REQUESTER


def identify(annotations: "Mapping[str, str]", engine: str | None) -> "dict[str, str | None]":
    """Which names the `annotations` tell: the engine's own ones where `engine` is known.

    Without it the annotations of every engine are looked at, and all of that is the
    requester's word.
    """
    sources = [_SET_BY[engine]] if engine else list(_SET_BY.values())
    found: dict[str, str | None] = {}
    for attribute in CLAIMS:
        keys = (source[attribute] for source in sources if attribute in source)
        found[attribute] = next((annotations[key] for key in keys if key in annotations), None)
    return found


def claims(
    annotations: "Mapping[str, str]", find_name: "Callable[[], str | None]"
) -> "dict[str, str | None]":
    """What the hook tells the broker of a container with these `annotations`."""
    found = identify(annotations, None)
    return {**found, "container": found["container"] or find_name()}


def of_container(
    annotations: "Mapping[str, str]",
    container: "Container",
    root: str,
    *,
    engine: str | None,
    uses: "Collection[str]",
    caller: tuple[int, int],
    device: str | None = None,
    find_name: "Callable[[], str | None]" = unnamed,
) -> Subject:
    """Who asks where the hook itself decides, as far as the policy's rules look (`uses`).

    `root` is the container's root filesystem, `caller` our real user and our group, and `device`
    the CDI device that asks.  Raises HookError (USAGE) for an engine that there isn't.

    Here an engine has started us, which has just made the user namespace or joined one, and so
    there is none of the doubt about root's that the broker has (`owner.user_behind`): root's is an
    engine of root's, whichever ids it maps.  But what root's engine did for whoever called it by a
    set-user-id program is that user's, who is our real user then.
    """
    if engine is not None and engine not in ENGINES:
        raise HookError(USAGE, f"--engine {quote(engine)} is none of {', '.join(ENGINES)}")
    names = identify(annotations, engine)
    if "container" in uses and names["container"] is None and engine in (None, "podman"):
        names["container"] = find_name()

    def shared() -> "tuple[bool | None, bool | None]":
        return (
            container.has_host_network() if "host_network" in uses else None,
            container.sees_host_cgroups(root) if "host_cgroup" in uses else None,
        )

    user, group = caller
    return _subject(
        names,
        annotations=annotations,
        engine=engine,
        cdi=device,
        user=container.owner() or user,
        group=(group,),
        # Only in the initial user namespace does the hook come this far by itself.
        rootless=False,
        shared=shared,
        find_name=find_name,
    )


def of_peer(
    claimed: "Mapping[str, str]",
    user: int,
    *,
    engine: str | None,
    uses: "Collection[str]",
    groups: "Callable[[int], Iterable[int]]",
    shared: "Callable[[], tuple[bool, bool]]",
) -> Subject:
    """Who asks the broker: the `user`, by the kernel's word; what is `claimed` gives nothing.

    `groups` finds that user's groups, and `shared` what the container shares with the host, where
    the policy's rules look (`uses`).  `engine` is the policy's.
    """
    looks = not {"host_network", "host_cgroup"}.isdisjoint(uses)
    return _subject(
        {key: claimed.get(key) for key in CLAIMS},
        annotations={},
        engine=engine,
        user=user,
        group=tuple(groups(user)) if "group" in uses else (),
        rootless=user != 0,
        shared=shared if looks else _unseen,
        claimed=_CLAIMED,
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
    """Who gets what root delegates to a container that runs, and whose it is: the `user`.

    Its `names` and `engine` are believed where root's engine gave them, or it is `vouched` for;
    `default` is the engine else.  That root's engine may have given it ids of a user's makes the
    container that user's, and no other name.
    """
    believed = vouched or user == 0
    return _subject(
        {key: names.get(key) if believed else None for key in CLAIMS},
        annotations={},
        engine=engine if believed and engine in ENGINES else default,
        user=user,
        group=tuple(groups(user)),
        rootless=user != 0,
        shared=shared,
    )


def of_recording(user: int, groups: "Iterable[int]", container: "Container") -> Subject:
    """Who records a program in a sandbox, the `container`: root, for the `user` who called."""
    return _subject(
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
    """Who would ask: a container of root's with nothing of the host's, but for what is said.

    `more` are attributes that a file or a command line tells, of which later ones win.
    Of a rootless engine's, and with `inside` of a hook that is in the container, the broker
    decides: what isn't the kernel's word is a claim there, and it doesn't take the hook's word for
    it that a CDI device asks.
    """
    said: dict[str, Any] = {"user": 0, "group": (0,), "rootless": False}
    said |= {"host_network": False, "host_cgroup": False, "cdi": None}
    said |= identify(annotations, engine)
    for one in more:
        said |= one
    broker = said["rootless"] or inside
    return _subject(
        {key: said[key] for key in CLAIMS},
        annotations={} if broker else annotations,
        engine=engine,
        cdi=None if broker else said["cdi"],
        user=said["user"],
        group=said["group"],
        rootless=said["rootless"],
        shared=lambda: (said["host_network"], said["host_cgroup"]),
        claimed=_CLAIMED if broker else _NONE,
    )


_NONE: frozenset[str] = frozenset()
_CLAIMED = frozenset((*CLAIMS, "annotations", "engine"))


def _unseen() -> tuple[None, None]:
    """Where no rule is about what the container shares."""
    return None, None


def _subject(
    names: "Mapping[str, str | None]",
    *,
    annotations: "Mapping[str, str]",
    engine: str | None,
    user: int,
    group: tuple[int, ...],
    rootless: bool,
    shared: "Callable[[], tuple[bool | None, bool | None]]",
    cdi: str | None = None,
    claimed: frozenset[str] = _NONE,
    find_name: "Callable[[], str | None]" = unnamed,
) -> Subject:
    """The one that all of these make."""
    # A user goes in and out of namespaces of their own with a token in hand: what their container
    # doesn't see of the host's, they do.  There is no need to look.
    network, cgroup = (True, True) if rootless else shared()
    return Subject(
        annotations=annotations,
        cdi=cdi,
        claimed=claimed,
        container=names.get("container"),
        engine=engine,
        find_name=find_name,
        group=group,
        host_cgroup=cgroup,
        host_network=network,
        image=names.get("image"),
        namespace=names.get("namespace"),
        pod=names.get("pod"),
        rootless=rootless,
        user=user,
    )
