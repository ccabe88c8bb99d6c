"""Finds what a container lacks to use what it is granted: capabilities, libbpf's variable, ...

A file says what the container has, and each reader of files puts that into a Means.  What the
container needs depends on the grant and, for some of it, on the engine, so that both are compared
only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..bpf.capabilities import that_take
from ..bpf.names import Enum
from ..bpf.type_facts import NET_ADMIN, PERFMON
from ..delegation.annotations import PATH, PREFIX
from ..errors import quote
from ..oci.cdi import KIND, TOKEN_PATH
from ..text.places import Spot
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The codes of the findings; `doctor` uses the same names for the same causes.
AMBIENT = "ambient"
TOKEN = "token-path"  # noqa: S105  A finding's name.
HIDDEN = "hidden-volume"
SHARED = "shared-volume"
# What podman's hook at precreate adds.
ADDED = frozenset(("cap-bpf", "cap-net-admin", "cap-perfmon", AMBIENT, TOKEN))

PODMAN = "podman"
CRI_O = "cri-o"
_ALL = "ALL"
_FROM_HOST = "/sys/fs/bpf"
_NAMED = 8
# CAP_SYS_ADMIN stands for both of these (Linux: kernel/bpf/token.c, bpf_token_capable), but a token
# is made only with CAP_BPF itself.
_SECOND = (NET_ADMIN, PERFMON)


class Lack(Value):
    """What a container lacks, or what isn't as its author may think.

    `code` is its name for programs; `option` is the key of the annotation that it is about, without
    the prefix, or empty; `reason` and `fix` are the two halves of a sentence.
    """

    __slots__ = ("code", "fix", "option", "reason", "spot")
    code: str
    option: str
    spot: Spot | None
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}"


class Mount(Value):
    """Something that the file has mounted at `path`; `source` is the host's path, or None.

    `shared` says that what is mounted in it shows on the host too.
    """

    __slots__ = ("path", "shared", "source", "spot")
    path: str
    shared: bool
    source: str | None
    spot: Spot


class Means(Value):
    """What a file says that a container has.

    `capabilities` are added to it, and `dropped` taken away; ALL is one of the names.  `privileged`
    gives all of them to root alone.  `user` names its user, None for root or the image's; `ambient`
    are the capabilities that such a user has, None if the engine decides that.  `engine` is the
    only engine that reads such a file, or None.

    `token_path` is the value of libbpf's variable, None if the file doesn't set it; `unread` says
    that the environment has parts that the file doesn't show.  `mounts` are its volumes.
    `cri_o_users` is the spot of an annotation by which CRI-O alone makes a user namespace.
    """

    __slots__ = (
        *("ambient", "capabilities", "cri_o_users", "dropped", "engine", "mounts", "privileged"),
        *("spot", "token_path", "unread", "user", "user_spot"),
    )
    capabilities: frozenset[str]
    dropped: frozenset[str]
    privileged: bool
    spot: Spot
    user: str | None
    user_spot: Spot
    ambient: frozenset[str] | None
    engine: str | None
    token_path: str | None
    unread: bool
    mounts: tuple[Mount, ...]
    cri_o_users: Spot | None

    def adds(self, name: str, engine: str | None) -> bool:
        """Whether the capability `name`, without CAP_, is added to the container by `engine`."""
        if name in self.capabilities:
            return True
        # podman's --privileged gives nothing to another user than root; --cap-add=all does.
        privileged = self.privileged and (self.user is None or engine != PODMAN)
        return (privileged or _ALL in self.capabilities) and name not in self.dropped

    def keeps(self, name: str, engine: str | None) -> bool:
        """Whether the container's process has that capability, once it is added, whoever runs it.

        podman puts what is added into the ambient set of another user than root.  Kubernetes and
        Docker put nothing there (KEP-2763 has come to nothing so far).
        """
        if self.user is None:
            return True
        return name in self.ambient if self.ambient is not None else engine == PODMAN


def means(
    *,
    capabilities: Iterable[Any] = (),
    dropped: Iterable[Any] = (),
    privileged: bool = False,
    spot: Spot,
    user: object = None,
    user_spot: Spot | None = None,
    ambient: Iterable[Any] | None = None,
    engine: str | None = None,
    environment: Mapping[str, object] | None = None,
    unread: bool = False,
    mounts: Iterable[Mount] = (),
    cri_o_users: Spot | None = None,
) -> Means:
    """A Means with defaults for what the file doesn't say; `spot` is where the rest goes."""
    path = (environment or {}).get(TOKEN_PATH)
    return Means(
        capabilities=_names(capabilities),
        dropped=_names(dropped),
        privileged=privileged,
        spot=spot,
        user=None if user is None or _is_root(user) else str(user),
        user_spot=user_spot or spot,
        ambient=None if ambient is None else _names(ambient),
        engine=engine,
        token_path=path if isinstance(path, str) else None,
        # A variable without a value comes from somewhere else.
        unread=unread or (TOKEN_PATH in (environment or {}) and not isinstance(path, str)),
        mounts=tuple(mounts),
        cri_o_users=cri_o_users,
    )


def volume(text: str, spot: Spot) -> Mount:
    """The volume SOURCE:PATH:OPTIONS, SOURCE:PATH or PATH, which stands at `spot`."""
    source, colon, rest = text.partition(":")
    path, _, options = rest.partition(":") if colon else (source, "", "")
    return Mount(
        path=path,
        shared=is_shared(options.split(",")),
        source=source if colon and source.startswith("/") else None,
        spot=spot,
    )


def is_shared(options: Iterable[object]) -> bool:
    """Whether one of a mount's `options` shares it with the host."""
    return any(one in ("shared", "rshared") for one in options)


def is_our_device(text: object) -> bool:
    """Whether `text` names a CDI device of ours, which may also set libbpf's variable."""
    return isinstance(text, str) and text.startswith(f"{KIND}=")


def _names(capabilities: Iterable[Any]) -> frozenset[str]:
    return frozenset(str(name).upper().removeprefix("CAP_") for name in capabilities)


def _is_root(user: object) -> bool:
    return str(user).partition(":")[0] in ("0", "root", "")


def taking(masks: Mapping[str, int], enums: Mapping[str, Enum]) -> dict[str, list[str]]:
    """For each capability beside CAP_BPF the types in `masks` that take it."""
    return {name: that_take(name, masks, enums) for name in _SECOND}


def lacks(given: Means, engine: str | None, takes: Mapping[str, list[str]]) -> Iterator[Lack]:
    """What a container with these means lacks under this `engine`, if that is known.

    `takes` has the types that it is to use, by the capability that they take beside CAP_BPF; with
    that a token is made.
    """
    engine = given.engine or engine
    if given.cri_o_users and engine != CRI_O:
        yield Lack(
            code="user-namespace",
            option="",
            spot=given.cri_o_users,
            reason="only CRI-O gives this pod a user namespace by an annotation, and BPF tokens "
            "exist only in one",
            fix="set hostUsers: false in its spec",
        )
    needed = {"BPF": ["BPF"]}
    if not given.adds("SYS_ADMIN", engine):
        needed |= {name: types for name, types in takes.items() if types}
    for name, types in needed.items():
        if not given.adds(name, engine):
            yield _missing(name, types, given.spot)
    if lost := [name for name in needed if not given.keeps(name, engine)]:
        yield _not_ambient(given, lost)


def second(name: str, types: list[str]) -> Lack:
    """What is said of the capability `name`, which these `types` take, if no container is known."""
    return _missing(name, types, None)


def _missing(name: str, types: list[str], spot: Spot | None) -> Lack:
    """The lack of the capability `name`, which these `types` take."""
    reason = "nothing adds CAP_BPF to this container, and without it no token can be made"
    if name != "BPF":
        reason = f"{_listed(types)}: the kernel makes these only with CAP_{name} besides CAP_BPF"
        reason += ", and nothing adds it to this container" if spot else ""
    return Lack(
        code=f"cap-{name.lower().replace('_', '-')}",
        option="",
        spot=spot,
        reason=reason,
        fix=f"add the capability {name}",
    )


def _not_ambient(given: Means, lost: list[str]) -> Lack:
    """The lack of the capabilities `lost` by a user that isn't root."""
    names = ", ".join(f"CAP_{name}" for name in lost)
    said = (
        f"it runs as the user {given.user}, and a process that isn't root's has a capability only"
        " if that is in its ambient set"
    )
    if given.ambient is None:
        said += "; podman puts added capabilities into that set, but Kubernetes and Docker don't"
        fix = "run it as root, which is root only in the container's user namespace"
    else:
        said += f", where {names} isn't"
        fix = f"add {names} to process.capabilities.ambient and to the other sets"
    return Lack(code=AMBIENT, option="", spot=given.user_spot, reason=said, fix=fix)


def misplaced(given: Means, path: str, spot: Spot) -> Iterator[Lack]:
    """What doesn't fit the bpffs at `path`; `spot` is that of the annotation that says so."""
    found = given.token_path
    if not given.unread and _plain(PATH if found is None else found) != path:
        yield token_path(path, found, spot)
    for mount in given.mounts:
        if mount.shared and f"{path}/".startswith(f"{_plain(mount.path).rstrip('/')}/"):
            yield Lack(
                code=SHARED,
                option="path",
                spot=mount.spot,
                reason=f"the bpffs at {path} would be in this volume, which is shared with the "
                "host, and if the runtime is crun the hook refuses that",
                fix=f"make the volume rprivate or rslave, or set {PREFIX}path elsewhere",
            )
        elif _is_hidden(mount, path):
            yield Lack(
                code=HIDDEN,
                option="path",
                spot=mount.spot,
                reason=f"the hook mounts the bpffs at {path} over this volume, and what is in the "
                "volume, such as what the host has pinned, can't be seen in the container",
                fix=f"mount the volume elsewhere, or set {PREFIX}path elsewhere",
            )


def token_path(path: str, found: str | None, spot: Spot | None) -> Lack:
    """The lack of libbpf's variable for a bpffs at `path`, if it has the value `found`."""
    reason = (
        f"libbpf looks for the bpffs at {PATH} unless {TOKEN_PATH} names another place"
        if found is None
        else f"{TOKEN_PATH} makes libbpf look for the bpffs at {quote(found)}, and it is at {path}"
        if found
        else f"with an empty {TOKEN_PATH} libbpf makes no token"
    )
    return Lack(
        code=TOKEN,
        option="path",
        spot=spot,
        reason=reason,
        fix=f"set {TOKEN_PATH}={path} in the container's environment",
    )


def _is_hidden(mount: Mount, path: str) -> bool:
    """Whether the bpffs at `path` hides what is in `mount`."""
    where = _plain(mount.path)
    if f"{where}/".startswith(f"{path}/"):
        return True
    if mount.source is None or not path.startswith(f"{where.rstrip('/')}/"):
        return False
    # It is around the bpffs, and hides only the host's bpffs, if that is at the same place in it.
    return f"{_plain(mount.source).rstrip('/')}{path[len(where.rstrip('/')) :]}" == _FROM_HOST


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part)


def _listed(names: list[str]) -> str:
    more = [f"and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*names[:_NAMED], *more])
