"""Reports wrong annotations and unknown names together; imported only once one is wrong.

Wrong annotations are found without a kernel or a policy, unknown names only with both.  Whoever
made mistakes of both kinds sees all of them in one error.
"""

from ..errors import UNKNOWN_NAME, HookError
from .annotations import AnnotationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .annotations import Request


def joined(error: HookError, judge: "Callable[[Request], object]") -> HookError:
    """`error`, with the unknown names added that `judge` finds in the correct annotations.

    The exit code stays that of `error`, since a bad annotation counts more than an unknown name.
    Any other error of `judge` is dropped: it is reported once annotations and names are correct.
    """
    if not isinstance(error, AnnotationError) or not (error.rest.lists or error.rest.profiles):
        return error
    try:
        judge(error.rest)
    except HookError as other:
        if other.code == UNKNOWN_NAME:
            return HookError(error.code, *error.problems, *other.problems, hint=error.hint)
    return error
