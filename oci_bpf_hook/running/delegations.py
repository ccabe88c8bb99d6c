"""Finds the containers with a delegated bpffs, and what each can do with it."""

import pwd
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from time import monotonic

from ..audit.read import Granted, Grants, Key, grants
from ..bpf.exposures import exposures
from ..bpf.names import Enum
from ..container.namespaces import Process
from ..container.nesting import outermost, outermost_owner
from ..delegation.masks import parse_shown
from ..errors import HookError
from ..guard.confinement import confined
from ..kernel.mountinfo import Mount, of_interest
from ..values import Value
from . import containers
from .containers import Running
from .owner import user_behind
from .process import Patience, mounts, started
from .sharing import shares


class Notice(Value):
    """Something that an administrator should know: the `code` of its kind, and a sentence."""

    __slots__ = ("code", "text")
    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


# A container's root can put a mount over the bpffs, to hide it from those who look.
_COVERED = Notice(
    code="covered",
    text="another mount hides this bpffs; whoever has a token from it, or can unmount the other "
    "mount, can still use it",
)
# Seconds by which the times of a grant and of a process's start may differ: the audit trail has
# whole seconds, and the kernel's clock for processes isn't adjusted with the wall clock.
_CLOCKS = 2
_UNMOUNTED = Notice(
    code="unmounted",
    text="this was granted, but no mount of it can be found; the container may have tokens, or may "
    "have the bpffs open",
)
# The word that says whether a container is confined.
CONFINED = {True: "yes", False: "no", None: "?"}
_UNSEEN = "its mounts can't be looked at, and it may have any delegation"


class Delegation(Value):
    """A bpffs with delegate_* options that a container sees.

    `shown` are the options as the kernel shows them, and `masks` their bits.  `owner` is the host's
    user who owns the container's user namespace (owner.user_behind).  `covered` says that another
    mount covers the bpffs.  `unseen` says why the container's mounts can't be looked at, or is "";
    if they can't, everything else comes from the audit trail.  `confined` says whether the guard
    confines the tokens, or is None if that isn't known.  `host_network` and `host_cgroup` say what
    the container shares with the host.  `rule` is the policy's rule that granted this, by the audit
    trail, or None.  `warnings` are what else an administrator should know.
    """

    __slots__ = (
        *("confined", "container", "covered", "device", "host_cgroup", "host_network", "masks"),
        *("owner", "path", "rule", "shown", "unseen", "user_namespace", "warnings"),
    )
    container: Running
    path: str
    device: str
    shown: dict[str, str]
    masks: dict[str, int]
    owner: int | None
    user_namespace: int
    covered: bool
    confined: bool | None
    unseen: str
    host_network: bool
    host_cgroup: bool
    rule: str | None
    warnings: tuple[Notice, ...]

    @property
    def owner_name(self) -> str:
        """The name of the owner, or the number; "?" if the owner isn't known."""
        return "?" if self.owner is None else user_name(self.owner)


def user_name(uid: int) -> str:
    """The name of the user `uid` of the host, or the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def delegations(enums: Mapping[str, Enum]) -> list[Delegation]:
    """Every delegation of every container that we may look at, one for each superblock.

    A mount namespace that was copied from a container's shows the same mounts, and is left out.
    """
    found: list[Delegation] = []
    seen: set[tuple[int, str, str]] = set()
    every = containers.containers()
    known = granted_to(every)
    patience: dict[int, Patience] = {}
    for one in every:
        for delegation in of_container(one, enums, known, patience):
            # Whether two containers with unseen mounts have the same bpffs isn't known.
            what = f"of {one.id or one.mount}" if delegation.unseen else delegation.device
            key = (delegation.user_namespace, what, delegation.path)
            if key not in seen:
                seen.add(key)
                found.append(delegation)
    shown = {delegation.container.id for delegation in found}
    for one in every:
        if one.id not in shown:
            shown.add(one.id)
            found += unmounted(one, enums, known)
    return found


def granted_to(those: Iterable[Running]) -> Grants:
    """What each of these containers was granted, by the audit trail."""
    wanted: dict[Key, float] = {}
    for one in those:
        with suppress(HookError, OSError), Process(one.pid) as process:
            wanted |= dict.fromkeys(_keys(one, process), started(process))
    return grants(wanted)


def _keys(one: Running, process: Process) -> list[Key]:
    """The keys under which the audit trail may have the container `one`, the best first.

    If root owns the user namespace, root's hook has recorded root as the user; the broker records
    the user for whom the namespace was made.  Root's record counts first.
    """
    identity = one.id or f"pid-{one.pid}"
    owner = outermost_owner(process)
    users = ([] if owner else [0]) + [user_behind(process)]
    return [(identity, user) for user in dict.fromkeys(users)]


def _granted(known: Grants, one: Running, process: Process) -> Granted | None:
    """The last grant to the container `one`, or None if the trail has none."""
    return next((known[key] for key in _keys(one, process) if key in known), None)


def unmounted(one: Running, enums: Mapping[str, Enum], known: Grants) -> Iterator[Delegation]:
    """The delegation that `one` was granted, by the audit trail; for a container without the mount.

    A container's root can unmount the bpffs, and keep a token or the bpffs open.
    """
    if one.id is None:
        return
    try:
        with Process(one.pid) as process:
            granted = _granted(known, one, process)
            # A container that was restarted after the grant has no token any more.
            if (
                granted
                and granted.shown
                and granted.time >= int(started(process)) - _CLOCKS
                and process.is_in(one.user, one.mount)
            ):
                yield _delegation(one, process, enums, granted, shares(process))
    except (HookError, OSError):
        return


def of_container(
    one: Running,
    enums: Mapping[str, Enum],
    known: Grants,
    patience: dict[int, Patience] | None = None,
) -> Iterator[Delegation]:
    """The delegations of `one`; none if it has just ended.

    A container that can't be looked at has one delegation, which says only why.  `patience` is what
    may still be read of each owner's containers, if several containers are looked at.
    """
    try:
        with Process(one.pid) as process:
            if process.is_in(one.user, one.mount):  # Otherwise its pid is another process's now.
                yield from _of_process(
                    one, process, enums, known, {} if patience is None else patience
                )
    except (HookError, OSError):
        return


def _of_process(
    one: Running,
    process: Process,
    enums: Mapping[str, Enum],
    known: Grants,
    patience: dict[int, Patience],
) -> Iterator[Delegation]:
    namespace, owner = outermost(process)
    granted = _granted(known, one, process)
    try:
        # Root runs containers for many users, so each of root's user namespaces counts alone.
        whose = patience.setdefault(owner or -namespace, Patience())
        every = mounts(process, of_interest(), whose)
    except OSError as error:
        if isinstance(error, PermissionError) or not process.alive():
            raise
        unseen = error.strerror or str(error)
        yield _delegation(one, process, enums, granted, (True, True), unseen=unseen)
        return
    if not any(mount.delegates for mount in every.kept):
        return
    shared = shares(process)
    for mount in every.kept:
        if mount.delegates:
            yield _delegation(
                one,
                process,
                enums,
                granted,
                shared,
                mount=mount,
                covered=mount.id in every.covered,
                held=_held(process, mount, whose),
            )


def _held(process: Process, mount: Mount, patience: Patience) -> bool | None:
    """Whether the bpffs is confined; None if the time for asking is used up.

    The path to the mount may lead through a container's own file system that doesn't answer, and
    there may be thousands of such mounts.
    """
    began = monotonic()
    if patience.seconds <= 0:
        return None
    try:
        return confined(process, mount)
    finally:
        patience.seconds -= monotonic() - began


def _delegation(
    one: Running,
    process: Process,
    enums: Mapping[str, Enum],
    granted: Granted | None,
    shared: tuple[bool, bool],
    *,
    mount: Mount | None = None,
    covered: bool = False,
    held: bool | None = None,
    unseen: str = "",
) -> Delegation:
    """The delegation of a `mount`, or what was `granted` if the mount is gone or can't be seen."""
    network, cgroup = shared
    shown = mount.delegates if mount else granted.shown if granted else {}
    masks = {option: _mask(text, enums[option]) for option, text in shown.items()}
    hidden = _COVERED if covered else None if mount else _UNMOUNTED
    if unseen:
        hidden = Notice(code="unseen", text=f"{_UNSEEN}: {unseen}")
    reaches = warnings(masks, enums, confined=held, host_network=network, host_cgroup=cgroup)
    return Delegation(
        container=one,
        path=mount.point if mount else granted.path if granted else "",
        device=mount.device if mount else "",
        shown=shown,
        masks=masks,
        owner=_owner(process),
        user_namespace=one.user,
        covered=covered,
        confined=held,
        unseen=unseen,
        host_network=network,
        host_cgroup=cgroup,
        rule=granted.rule if granted else None,
        warnings=(*([hidden] if hidden else []), *reaches, *_refused(one.user)),
    )


def _refused(space: int) -> list[Notice]:
    """What the guard last refused in that user namespace, as a warning."""
    from ..guard.lsm.refusals import of_space

    try:
        found = of_space(space)
    except OSError:  # There is no guard, or we may not ask it.
        return []
    return [Notice(code="refused", text=str(one)) for one in found[:1]]


def _mask(text: str, enum: Enum) -> int:
    try:
        return parse_shown(text, enum)
    except ValueError:  # A newer kernel without BTF shows a name that the table doesn't have.
        return 0


def _owner(process: Process) -> int | None:
    try:
        return user_behind(process) if process.owner() == 0 else process.owner()
    except (HookError, OSError):
        return None


def names(mask: int, enum: Enum) -> list[str]:
    """The names of the bits in `mask`, in the enum's order."""
    return [name for value, name in sorted(enum.names.items()) if mask >> value & 1]


def warnings(
    masks: Mapping[str, int],
    enums: Mapping[str, Enum],
    *,
    confined: bool | None,
    host_network: bool,
    host_cgroup: bool,
) -> Iterator[Notice]:
    """What a container reaches beyond itself with `masks`; `confined` None counts as False."""
    given = {option: names(mask, enums[option]) for option, mask in masks.items()}
    for one in exposures(
        given, confined=bool(confined), host_network=host_network, host_cgroup=host_cgroup
    ):
        yield Notice(code=one.code, text=f"{', '.join(one.names)}: {one.what}")
