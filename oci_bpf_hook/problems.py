"""All that is wrong with a request, at once: only a mistake pays for this module.

What a key's text can't be is seen without a kernel and without a policy, and what a name isn't only
with both; who has made mistakes of either kind wants to hear of all.
"""

from .errors import UNKNOWN_NAME, HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .annotations import Request


def joined(error: HookError, judge: "Callable[[Request], object]") -> HookError:
    """`error`, with what `judge` says of the names in the rest of that request.

    The exit code stays that of `error`: a bad annotation before an unknown name.  Whatever else
    there is to say of the rest is for when the request is in order.
    """
    rest = error.request
    if rest is None or not (rest.lists or rest.profiles):
        return error
    try:
        judge(rest)
    except HookError as other:
        if other.code == UNKNOWN_NAME:
            return HookError(error.code, *error.problems, *other.problems, hint=error.hint)
    return error
