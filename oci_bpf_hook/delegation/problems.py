"""Tells everything that is wrong with a request at once; imported only after a mistake.

Wrong annotations are found without a kernel or a policy, unknown names only with both.  Whoever
made mistakes of both kinds hears of all of them.
"""

from ..errors import UNKNOWN_NAME, HookError
from .annotations import AnnotationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .annotations import Request


def joined(error: HookError, judge: "Callable[[Request], object]") -> HookError:
    """`error`, and after its problems those that `judge` finds with the names in the rest.

    The exit code stays that of `error`: a bad annotation comes before an unknown name.  What else
    `judge` may have against the rest is told once the annotations and names are in order.
    """
    if not isinstance(error, AnnotationError) or not (error.rest.lists or error.rest.profiles):
        return error
    try:
        judge(error.rest)
    except HookError as other:
        if other.code == UNKNOWN_NAME:
            return HookError(error.code, *error.problems, *other.problems, hint=error.hint)
    return error
