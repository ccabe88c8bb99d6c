"""What a container may load: what that takes besides CAP_BPF, and how far it reaches."""

from collections.abc import Iterator, Mapping, Sequence

from ..bpf import attaching
from ..bpf.attaching import types_by_perf_event
from ..bpf.capabilities import takes
from ..bpf.exposures import exposures
from ..bpf.names import ATTACHS, PROGS
from ..bpf.type_facts import NET_ADMIN, PERFMON
from ..container.namespaces import Process
from ..kernel import process as probe_process
from ..running.process import Status
from ..running.sharing import shares
from .finding import Finding, problem, warning


def check(
    process: Process, status: Status, given: Mapping[str, Sequence[str]], *, confined: bool
) -> Iterator[Finding]:
    """What there is to say about a `process` with `status`, to which these names are delegated."""
    programs = given.get(PROGS.option, ())
    # A process without CAP_BPF lacks that first of all, and another check says so.  CAP_SYS_ADMIN
    # stands in for each of the others.
    if status.has(probe_process.CAP_BPF) and not status.has(probe_process.CAP_SYS_ADMIN):
        yield from _second_capabilities(status, programs)
    perf = types_by_perf_event(programs, given.get(ATTACHS.option, ()))
    if perf:
        yield warning("perf-event-open", f"{', '.join(perf)}: {attaching.WHY}", attaching.FIX)
    network, cgroup = shares(process)
    for exposure in exposures(given, confined=confined, host_network=network, host_cgroup=cgroup):
        names = ", ".join(exposure.names)
        yield warning(exposure.code, f"{names}: {exposure.what}", exposure.fix)


def _second_capabilities(status: Status, programs: Sequence[str]) -> Iterator[Finding]:
    for capability, number in (
        (PERFMON, probe_process.CAP_PERFMON),
        (NET_ADMIN, probe_process.CAP_NET_ADMIN),
    ):
        needing = [name for name in programs if capability in takes(name)]
        if needing and not status.has(number):
            yield problem(
                f"cap-{capability.lower().replace('_', '-')}",
                f"{', '.join(needing)} take CAP_{capability} besides CAP_BPF, and the process "
                "lacks it",
                add_capabilities(capability),
            )


def add_capabilities(*missing: str) -> str:
    """What gives a container these capabilities, named without CAP_."""
    added = " ".join(f"--cap-add {name}" for name in missing)
    return f"podman run {added} ... (Kubernetes: securityContext.capabilities.add)"
