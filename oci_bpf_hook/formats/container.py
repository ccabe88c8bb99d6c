"""A container as some file describes it: what it asks for, and what the file tells of it.

Every reader makes these, whatever the file; what is made of them doesn't depend on where they
come from.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ..delegation.annotations import PREFIX
from ..text.places import Fault, Spot, fault
from ..values import Value


class Asker(Value):
    """One container.

    `where` has the spot of the value of each of our `annotations`, and `here` the spot of the
    container itself.  `subject` is what a policy's rules may match, as far as the file says it.
    `user_namespace` is whether it has one of its own, None where that isn't the file's to say;
    `masked` are the paths that the engine will cover, `remounted` those whose mount it will
    change, `owner` the uid and gid of its root on the host, `root` the path of its root
    filesystem; `inside` is whether the hook is in the container already, at createContainer.
    `doubts` are what is doubtful about the file itself, and `lacks` what only a container that
    asks for a delegation is in want of.
    """

    __slots__ = (
        *("annotations", "doubts", "here", "inside", "lacks", "masked", "name", "owner"),
        *("remounted", "root", "subject", "user_namespace", "where"),
    )
    name: str
    annotations: dict[str, str]
    where: dict[str, Spot]
    here: Spot
    subject: dict[str, object]
    user_namespace: bool | None
    masked: tuple[str, ...]
    remounted: tuple[str, ...]
    owner: tuple[int, int] | None
    root: str | None
    inside: bool
    doubts: tuple[Fault, ...]
    lacks: tuple[Fault, ...]

    def asks(self) -> bool:
        """Whether any of its annotations is ours."""
        return any(key.startswith(PREFIX) for key in self.annotations)


TOP = Spot(line=1, column=1)
_NO_CAPABILITY = (
    "nothing adds CAP_BPF to this container, and without it no token can be made; add the "
    "capability BPF"
)


def asker(
    name: str,
    annotations: Mapping[str, str],
    where: Mapping[str, Spot],
    *,
    here: Spot = TOP,
    subject: Mapping[str, object] | None = None,
    user_namespace: bool | None = None,
    masked: Iterable[str] = (),
    remounted: Iterable[str] = (),
    owner: tuple[int, int] | None = None,
    root: str | None = None,
    inside: bool = False,
    doubts: Iterable[Fault] = (),
    lacks: Iterable[Fault] = (),
) -> Asker:
    """An Asker of which the file says no more than this."""
    return Asker(
        name=name,
        annotations=dict(annotations),
        where=dict(where),
        here=here,
        subject=dict(subject or {}),
        user_namespace=user_namespace,
        masked=tuple(masked),
        remounted=tuple(remounted),
        owner=owner,
        root=root,
        inside=inside,
        doubts=tuple(doubts),
        lacks=tuple(lacks),
    )


def lacking(
    capabilities: Iterable[Any], here: Spot, *, privileged: bool = False, user: Any = None
) -> list[Fault]:
    """What a container with these capabilities and that user is in want of."""
    names = {str(name).upper().removeprefix("CAP_") for name in capabilities}
    found: list[Fault] = []
    if not privileged and names.isdisjoint(("BPF", "ALL")):
        found.append(fault(here, _NO_CAPABILITY))
    if user is not None and str(user).partition(":")[0] not in ("0", "root", ""):
        found.append(
            fault(
                here,
                f"it runs as the user {user}, and a capability reaches a process that isn't "
                "root's only as an ambient one",
            )
        )
    return found


def no_user_namespace(here: Spot, add: str) -> Fault:
    """The want of a container that gets a user namespace only if its engine gives it one."""
    return fault(
        here,
        f"nothing gives this container a user namespace, and BPF tokens exist only in one; {add}, "
        "unless the engine's configuration does it",
    )
