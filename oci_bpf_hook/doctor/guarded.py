"""What the guard has refused in a container, which its programs saw as an EPERM."""

from collections.abc import Iterator

from ..lsm.refusals import PERFMON, REASONS, of_space
from .finding import Finding, problem, warning

# The guard keeps a few more; the older ones are in the audit trail.
_SHOWN = 3


def check(space: int) -> Iterator[Finding]:
    """The last refusals in the user namespace with that inode number; none without a guard."""
    try:
        found = of_space(space)
    except OSError:
        return
    for one in found[:_SHOWN]:
        # A program that is let pass may never come to the call that it is told for.
        told = warning if one.reason == REASONS[PERFMON] else problem
        yield told("guard", str(one))
