"""A finding: what was checked, whether it is in order, why, and what to do.

Checks yield findings and print nothing.  A finding has the name of its cause, by which tests and
scripts know it.
"""

from ..values import Value

OK = "ok"
WARNING = "warning"
PROBLEM = "problem"
STATES = (OK, WARNING, PROBLEM)


class Finding(Value):
    """`what` is the cause's name, `why` a sentence, `fix` a command to paste, or ""."""

    __slots__ = ("fix", "state", "what", "why")
    what: str
    state: str
    why: str
    fix: str


def ok(what: str, why: str) -> Finding:
    """The finding that `what` is in order."""
    return Finding(what=what, state=OK, why=why, fix="")


def warning(what: str, why: str, fix: str = "") -> Finding:
    """The finding that BPF may work in spite of `what`, which people should know."""
    return Finding(what=what, state=WARNING, why=why, fix=fix)


def problem(what: str, why: str, fix: str = "") -> Finding:
    """The finding that BPF doesn't work because of `what`."""
    return Finding(what=what, state=PROBLEM, why=why, fix=fix)
