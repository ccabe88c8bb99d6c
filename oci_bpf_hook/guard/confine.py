"""Finds the guard that a confined grant needs, before anything is granted.

The masks choose types of programs, not what a program calls.  So whoever has a token that may load
programs is trusted with the kernel, unless the guard, a set of BPF LSM programs, holds the token.
A confined grant of prog_load is made only if the guard is in force.  A confined grant of anything
else is always made, and its mount is marked if the guard is in force.
"""

from ..errors import REFUSED, HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..bpf.names import Enum
    from ..policy.decide import Decision
    from ..policy.subject import Subject
    from .pinned import Guard


def guard_for(
    decision: "Decision", subject: "Subject", enums: "Mapping[str, Enum]"
) -> "Guard | None":
    """The open guard for the `decision` about `subject`; the caller closes it.

    Returns None if the grant isn't confined, or if no guard is in force and the grant doesn't need
    one.  Raises HookError (REFUSED) if no guard is in force and the grant needs one; the hint says
    how to turn it on, and how to do without it.
    """
    if not decision.confined:
        return None
    from .pinned import AbsentError, in_force, needed

    try:
        return in_force()
    except AbsentError as error:
        if not needed(decision.grant.masks):
            return None
        from ..policy.refusal import without_guard

        problem = without_guard(
            decision.rule, decision.grant, str(error), subject, enums, decided=decision.match
        )
        raise HookError(REFUSED, problem, rule=decision.rule) from None
