"""Logs and records what can become of a case besides a grant: a refusal, or later a revocation.

Asking and being refused costs a user nothing, so the length of a refusal's record is limited, and
so is all that one user's refusals take up in a minute (`audit.allowance`).
"""

from ..audit.allowance import say_more, spend
from ..audit.write import write
from ..errors import BAD_POLICY, DONE, HookError, quote
from ..syslog import ERROR, INFO, log
from .case import Case

# Bytes of a refusal's line, with the newline.
LONGEST = 4096


def refused(case: Case, error: HookError, said: str = "") -> None:
    """Record the refusal of `case` by `error`, and log the sentence `said`.

    A failure is ignored.  If the user's refusals have used up this minute's allowance, the refusal
    is only counted.
    """
    to = _trail(case, error)
    line = ""
    if to != "none":
        fields = {"granted": None, "rule": error.rule, "problems": error.sentences}
        line = case.record_line("refused", error.code, fields, LONGEST - 1)
    say_more(to)
    if not spend(case.user, len(line) + len(said)):
        return
    if line:
        write(to, line, required=False)
    if said:
        log(ERROR, said)


def revoked(case: Case, path: str) -> None:
    """Log and record that the delegation at `path` was covered.  A failure is ignored."""
    who = quote(case.container)[1:-1]
    log(INFO, f"{who}: revoked what was delegated at {quote(path)}")
    line = case.record_line("revoked", DONE, {"granted": None, "rule": None})
    write(case.policy().audit_to, line, required=False)


def _trail(case: Case, error: HookError) -> str:
    """Where the refusal by `error` is recorded: the policy's `audit.to`, or "none"."""
    # Without a valid policy there is no trail, only the log.  A policy that was found to be bad
    # isn't read again here.
    if error.code == BAD_POLICY:
        return "none"
    try:
        return case.policy().audit_to
    except HookError:
        return "none"
