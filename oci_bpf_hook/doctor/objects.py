"""Whether what is delegated is enough for BPF objects: which bit is missing, and what needs it."""

import os
from collections.abc import Iterator, Mapping

from ..advise.needs import CAPABILITIES, CAPABILITY, Caution, Needs
from ..bpf.attaching import PERF_ATTACH
from ..bpf.names import KINDS, Enum
from ..bpf.type_facts import HOST_CGROUP, HOST_NETWORK, REACHES_BEYOND
from ..kernel.process import CAP_PERFMON, CAP_SYS_ADMIN
from ..running.process import Status
from .finding import Finding, ok, problem, warning
from .programs import add_capabilities

# It may need CAP_PERFMON; only the verifier knows.
_PERHAPS = "perhaps-perfmon"
# These are left out, since the check of the container itself says what the container reaches.
_SAID = (HOST_NETWORK, HOST_CGROUP, REACHES_BEYOND)


def check(
    needs: Needs, masks: Mapping[str, int], status: Status, enums: Mapping[str, Enum], target: str
) -> Iterator[Finding]:
    """What a process with `status` that may use `masks` lacks for `needs`.

    `target` is how a command line names the container.
    """
    missing = False
    for option, name in sorted(needs.bits):
        if option == CAPABILITY:
            yield from _capability(name, needs, status)
        elif name in enums[option].values:
            bit = 1 << enums[option].values[name]
            if not masks.get(option, 0) & bit:
                missing = True
                yield problem(
                    "missing-bit",
                    f"{option} lacks {name}: {_why(needs, option, name)}",
                    _delegate(needs, enums, target),
                )
    if not missing:
        yield ok("object", f"all that {', '.join(needs.sources)} needs is delegated")
    yield from cautions(needs, status)


def cautions(needs: Needs, status: Status | None = None) -> Iterator[Finding]:
    """What no delegation can give the objects, and what to beware of in a process of `status`."""
    for one in needs.warnings:
        if (
            one.code == _PERHAPS
            and status
            and (status.has(CAP_PERFMON) or status.has(CAP_SYS_ADMIN))
        ):
            continue
        if one.code == PERF_ATTACH:
            # It loads, and then isn't attached whatever is delegated.
            yield problem("perf-event-open", _text(one))
        elif one.code not in _SAID:
            yield warning(one.code, _text(one))


def _text(one: Caution) -> str:
    return f"{one.source}: {one.text}"


def _why(needs: Needs, option: str, name: str) -> str:
    reasons = dict.fromkeys(reason.why for reason in needs.why(option, name))
    return "; ".join(reasons)


def _capability(name: str, needs: Needs, status: Status) -> Iterator[Finding]:
    """A problem if the process lacks the capability `name`.

    CAP_BPF is checked elsewhere, and CAP_SYS_ADMIN stands in for each of the others.
    """
    if name == "bpf" or status.has(CAPABILITIES[name]) or status.has(CAP_SYS_ADMIN):
        return
    yield problem(
        f"cap-{name.replace('_', '-')}",
        f"it lacks CAP_{name.upper()}: {_why(needs, CAPABILITY, name)}",
        add_capabilities(name.upper()),
    )


def _delegate(needs: Needs, enums: Mapping[str, Enum], target: str) -> str:
    lists = needs.lists(enums)
    options = (
        f"--{kind.option.removeprefix('delegate_')} {','.join(lists[kind.option])}"
        for kind in KINDS
        if lists[kind.option]
    )
    return f"{as_root()}oci-bpf-hook delegate {target} {' '.join(options)}"


def as_root() -> str:
    """What a user has to put before a command of root's."""
    return "sudo " if os.geteuid() else ""
