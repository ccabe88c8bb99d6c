"""The guard that a confined grant takes, before there is any of it.

Masks choose types of programs, not what a program calls: a token that may load any is trusted
with the kernel unless the guard, programs of BPF LSM, holds it.  So a confined grant of prog_load
is made where that is in force, and nowhere else; what is there it gets wherever it is.
"""

from .errors import REFUSED, HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .guard import Guard
    from .names import Enum
    from .policy import Decision


def guard_for(
    decision: "Decision", subject: "Mapping[str, object]", enums: "Mapping[str, Enum]"
) -> "Guard | None":
    """The guard for what was decided for `subject`, open; it is the caller's to close.

    None where the grant isn't confined, and where one that has no use for a guard finds none.
    Raises HookError (REFUSED) with both ways out where it takes a guard, and none is in force.
    """
    if not decision.confined:
        return None
    from .guard import AbsentError, in_force, needed

    try:
        return in_force()
    except AbsentError as error:
        if not needed(decision.grant.masks):
            return None
        from .refusal import without_guard

        problem = without_guard(decision, str(error), subject, enums)
        raise HookError(REFUSED, problem, rule=decision.rule) from None
