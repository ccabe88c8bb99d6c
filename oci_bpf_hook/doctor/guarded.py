"""The guard: whether a host has it, and what it refused in a container, which saw only EPERM."""

import os
from collections.abc import Iterator

from ..container.namespaces import is_initial
from ..guard.lsm import load
from ..guard.lsm.refusals import PERFMON, REASONS, of_space
from ..guard.pinned import AbsentError, in_force, needed
from ..policy.compiled import Compiled
from .finding import Finding, ok, problem, warning

# The guard keeps a few more; the older ones are in the audit trail.
_SHOWN = 3
_ON = "oci-bpf-hook guard on"
_TRUST = "write a rule with confined: false, for those whom you trust with the kernel"


def of_host(policy: Compiled | None) -> Finding:
    """Whether the guard is in force on this host, or can be.

    Its absence is a warning only if a rule of the `policy` in force gives nothing without it;
    `policy` is None if it can't be read.
    """
    if os.geteuid() or not is_initial():
        return ok("guard", "only root on the host can tell whether it is in force")
    try:
        in_force().__exit__(None, None, None)
    except AbsentError as error:
        return _absent(str(error), policy)
    if not load.is_current():
        return warning("guard", "the guard in force is of another version; this renews it", _ON)
    return ok("guard", f"it is in force, and confines {_tokens()}")


def _tokens() -> str:
    try:
        count = load.tokens()
    except OSError as error:
        return f"tokens that can't be counted ({error.strerror})"
    return f"{count} token{'' if count == 1 else 's'}"


def _absent(why: str, policy: Compiled | None) -> Finding:
    obstacles = load.obstacles() or load.unready()
    if obstacles:
        why += f", and can't be turned on: {', and '.join(one.text for one in obstacles)}"
        fix = "; ".join(one.hint for one in obstacles if one.hint) or _TRUST
    else:
        why += ", and nothing visible keeps it from being turned on"
        fix = _ON
    if policy is None:
        return ok("guard", why)
    if not _takes_it(policy):
        return ok("guard", f"{why}; no rule of the policy needs it")
    return warning("guard", f"{why}; without it no confined rule lets a program be loaded", fix)


def _takes_it(policy: Compiled) -> bool:
    return any(
        rule["deny"] is None and rule["confined"] and needed(rule["masks"])
        for rule in policy.every()
    )


def check(space: int) -> Iterator[Finding]:
    """The last refusals in the user namespace with that inode number; none without a guard."""
    try:
        found = of_space(space)
    except OSError:
        return
    for one in found[:_SHOWN]:
        # The verifier refuses the program only if it can reach that call, so it may have loaded.
        told = warning if one.reason == REASONS[PERFMON] else problem
        yield told("guard", str(one))
