"""Describes who asks for a delegation, by the attributes that a policy's rules may match.

In the hook the attributes come from the container and its annotations (`of_container`).  Everybody
else, such as the broker, has other sources, and `subjects` makes a Subject from each of these.

A rule can rely on an attribute only as far as on the one who has set it (`origin`).
"""

from ..errors import USAGE, HookError, quote
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .container import Container


# For each engine, the annotations that the engine itself always sets, so that the requester can't
# change them; each was tried with a pod whose author sets it.  podman and Docker have no such
# annotation, since podman's --annotation overrides what podman sets.  podman's name for a container
# comes from conmon instead (`container.podman`).
SET_BY = {
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
ENGINES = tuple(SET_BY)
# The attributes that an engine sets, and that the broker's client can only claim.
CLAIMS = ("container", "image", "namespace", "pod")
NO_CLAIMS: frozenset[str] = frozenset()
NO_GLOBS: "Mapping[str, str]" = {}


def unnamed() -> str | None:
    """None, for a container whose name nothing but an annotation can tell."""
    return None


class Subject(Value):
    """Who asks.

    `engine` is the engine that the administrator says runs the hook, or None; `cdi` is the device
    that asks, or None if annotations ask.
    `user` and `group` are the host's ids; `rootless` is true if a user's own engine asks through
    the broker.
    `host_network` and `host_cgroup` say whether the container shares these with the host; they are
    None if no rule is about them, because nobody has looked then.
    `container`, `image`, `namespace` and `pod` are names, None if they aren't known; `annotations`
    are those that rules about annotations look at.
    `claimed` are the attributes that only the requester says; no rule that allows something matches
    by one of these.
    `find_name` finds the container's name if `container` is None; `named` calls it.
    `globs` has, for a name that will be another one next time, what stands for it in a rule that is
    to last; it is empty for a name that no rule should have.
    """

    __slots__ = (
        *("annotations", "cdi", "claimed", "container", "engine", "find_name", "globs", "group"),
        *("host_cgroup", "host_network", "image", "namespace", "pod", "rootless", "user"),
    )
    annotations: "Mapping[str, str]"
    cdi: str | None
    claimed: frozenset[str]
    container: str | None
    engine: str | None
    find_name: "Callable[[], str | None]"
    globs: "Mapping[str, str]"
    group: tuple[int, ...]
    host_cgroup: bool | None
    host_network: bool | None
    image: str | None
    namespace: str | None
    pod: str | None
    rootless: bool
    user: int

    def named(self) -> "Subject":
        """The same subject with the container's name, for a refusal and its record.

        If no rule is about names, the name is looked for only here, after the refusal: finding
        podman's name takes time, and a container that gets what it asks for shouldn't wait for it.
        """
        if self.container is not None:
            return self
        fields = {field: getattr(self, field) for field in self.__slots__}
        return Subject(**{**fields, "container": self.find_name()})

    def known(self) -> "dict[str, object]":
        """The attributes that a rule may match, by their names in a policy, without `annotations`.

        `cdi` is there only if a device asks; `host_network` and `host_cgroup` are there only if
        somebody has looked.
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
        """Whether the broker decides."""
        return bool(self.claimed)


def identify(annotations: "Mapping[str, str]", engine: str | None) -> "dict[str, str | None]":
    """The CLAIMS that the `annotations` tell, each None if it isn't there.

    If the `engine` is known, only the annotations that it sets itself count.  Otherwise those of
    all engines count, and the requester may have set them.
    """
    sources = [SET_BY[engine]] if engine else list(SET_BY.values())
    found: dict[str, str | None] = {}
    for attribute in CLAIMS:
        keys = (source[attribute] for source in sources if attribute in source)
        found[attribute] = next((annotations[key] for key in keys if key in annotations), None)
    return found


def make_subject(
    names: "Mapping[str, str | None]",
    *,
    annotations: "Mapping[str, str]",
    engine: str | None,
    user: int,
    group: tuple[int, ...],
    rootless: bool,
    shared: "Callable[[], tuple[bool | None, bool | None]]",
    cdi: str | None = None,
    claimed: frozenset[str] = NO_CLAIMS,
    find_name: "Callable[[], str | None]" = unnamed,
    globs: "Mapping[str, str]" = NO_GLOBS,
) -> Subject:
    """The Subject with these attributes, for the functions that make one from some source.

    `names` are the CLAIMS, and `shared` finds out what the container shares with the host.
    """
    # A user can take a token out of the container, to where the host's network and cgroups can be
    # seen.  So a rootless container counts as sharing both, and nobody has to look.
    network, cgroup = (True, True) if rootless else shared()
    return Subject(
        annotations=annotations,
        cdi=cdi,
        claimed=claimed,
        container=names.get("container"),
        engine=engine,
        find_name=find_name,
        globs=globs,
        group=group,
        host_cgroup=cgroup,
        host_network=network,
        image=names.get("image"),
        namespace=names.get("namespace"),
        pod=names.get("pod"),
        rootless=rootless,
        user=user,
    )


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
    """Who asks if the hook itself decides.

    Only the attributes that the policy's rules are about (`uses`) are looked for.  `root` is the
    container's root filesystem, `caller` is our real user and our group, and `device` is the CDI
    device that asks.  Raises HookError (USAGE) for an unknown engine.

    The engine that started us has just made or joined the user namespace.  So a namespace that root
    owns certainly comes from root's engine, whichever ids it maps; the broker can't be sure of that
    (`running.owner.user_behind`).  But if a user has called root's engine through a set-user-id
    program, our real user is that user, for whom the container is.
    """
    if engine is not None and engine not in ENGINES:
        raise HookError(USAGE, f"--engine {quote(engine)} is not one of {', '.join(ENGINES)}")
    names = identify(annotations, engine)
    if "container" in uses and names["container"] is None and engine in (None, "podman"):
        names["container"] = find_name()

    def shared() -> "tuple[bool | None, bool | None]":
        return (
            container.has_host_network() if "host_network" in uses else None,
            container.sees_host_cgroups(root) if "host_cgroup" in uses else None,
        )

    user, group = caller
    return make_subject(
        names,
        annotations=annotations,
        engine=engine,
        cdi=device,
        user=container.owner() or user,
        group=(group,),
        # The hook decides by itself only in the initial user namespace, so the engine is root's.
        rootless=False,
        shared=shared,
        find_name=find_name,
    )
