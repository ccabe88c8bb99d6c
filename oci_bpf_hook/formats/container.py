"""Describes a container as a file does: what it asks for, and what else the file says about it.

The reader of each kind of file makes these, and the rest of the program doesn't depend on the kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..delegation.annotations import PREFIX
from ..policy.forms import Form
from ..policy.subject import CLAIMS
from ..text.places import Fault, Spot, fault
from ..values import Value
from .means import Means

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass


class Asker(Value):
    """One container.

    `where` has the spot of each of our `annotations`, by key, and `here` is the container's own
    spot.  `subject` has what the file says of what a policy's rules may match, and `told` which of
    these an engine tells the hook, if it isn't known which engine that is.  `forms` has what is
    known of the names in `subject` that nobody has given yet, and `globs` what stands in a rule for
    a name that was made up; `named` is the spot of that name.  `user_namespace`
    says whether the container has a user namespace of its own, and is None if the file doesn't
    decide that.  `masked` are the paths that the engine will cover, `remounted` those at which it
    will change the mount, `owner` the host's uid and gid of the container's root, and `root` the
    path of its root filesystem.  `inside` says that the hook runs in the container, at
    createContainer.  `doubts` are what is doubtful about the file itself, and `lacks` what the
    container lacks if it asks for a delegation.  `means` are what it has to use one, None if nobody
    says that.
    """

    __slots__ = (
        *("annotations", "doubts", "forms", "globs", "here", "inside", "lacks", "masked", "means"),
        *("name", "named", "owner", "remounted", "root", "subject", "told", "user_namespace"),
        "where",
    )
    name: str
    annotations: dict[str, str]
    where: dict[str, Spot]
    here: Spot
    subject: dict[str, object]
    told: tuple[str, ...]
    forms: dict[str, Form]
    globs: dict[str, str]
    named: Spot
    user_namespace: bool | None
    masked: tuple[str, ...]
    remounted: tuple[str, ...]
    owner: tuple[int, int] | None
    root: str | None
    inside: bool
    doubts: tuple[Fault, ...]
    lacks: tuple[Fault, ...]
    means: Means | None

    def asks(self) -> bool:
        """Whether any of its annotations is ours."""
        return any(key.startswith(PREFIX) for key in self.annotations)


TOP = Spot(line=1, column=1)


def asker(
    name: str,
    annotations: Mapping[str, str],
    where: Mapping[str, Spot],
    *,
    here: Spot = TOP,
    subject: Mapping[str, object] | None = None,
    told: Iterable[str] = CLAIMS,
    forms: Mapping[str, Form] | None = None,
    globs: Mapping[str, str] | None = None,
    named: Spot = TOP,
    user_namespace: bool | None = None,
    masked: Iterable[str] = (),
    remounted: Iterable[str] = (),
    owner: tuple[int, int] | None = None,
    root: str | None = None,
    inside: bool = False,
    doubts: Iterable[Fault] = (),
    lacks: Iterable[Fault] = (),
    means: Means | None = None,
) -> Asker:
    """An Asker with defaults for what the file doesn't say."""
    return Asker(
        name=name,
        annotations=dict(annotations),
        where=dict(where),
        here=here,
        subject=dict(subject or {}),
        told=tuple(told),
        forms=dict(forms or {}),
        globs=dict(globs or {}),
        named=named,
        user_namespace=user_namespace,
        masked=tuple(masked),
        remounted=tuple(remounted),
        owner=owner,
        root=root,
        inside=inside,
        doubts=tuple(doubts),
        lacks=tuple(lacks),
        means=means,
    )


def no_user_namespace(here: Spot, add: str, *, host: str = "") -> Fault:
    """The fault that nothing in the file gives the container a user namespace.

    `host` is the setting that gives it the host's one, whatever the engine's configuration is.
    """
    if host:
        return fault(
            here,
            f"{host} gives this container the host's user namespace, and BPF tokens exist only in "
            f"one of its own; {add}",
        )
    return fault(
        here,
        f"nothing gives this container a user namespace, and BPF tokens exist only in one; {add}, "
        "unless the engine's configuration does it",
    )
