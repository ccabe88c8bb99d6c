"""The guard that a confined grant needs, looked up before anything is granted.

The masks choose types of programs, not what a program calls: a token that may load any program is
trusted with the kernel, unless the guard, a set of BPF LSM programs, holds it.  So a confined grant
of prog_load is made only where the guard is in force.  A confined grant of anything else is made
everywhere, and is marked where the guard is in force.
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
    """The open guard for what was decided for `subject`; the caller closes it.

    None if the grant isn't confined, or if it doesn't need the guard and none is in force.  Raises
    HookError (REFUSED), naming both ways out, if the grant needs the guard and none is in force.
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

        problem = without_guard(decision.rule, decision.grant, str(error), subject, enums)
        raise HookError(REFUSED, problem, rule=decision.rule) from None
