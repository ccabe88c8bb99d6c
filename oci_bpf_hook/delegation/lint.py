"""Finds what is doubtful about a valid delegation, each time with the reason and the fix.

The kernel accepts all of these delegations without a message.  The user notices the mistake when
bpf(2) fails with EPERM, or never.  The facts about the types are in `bpf.type_facts`.
"""

from ..bpf.names import ATTACHS, CMDS, MAPS, PROGS, Enum
from ..bpf.type_facts import (
    ALWAYS,
    BY_PERF_EVENT,
    CONFINE,
    HOST,
    MAPS_WITH_BTF,
    MAYBE,
    REACHES_BEYOND,
    UNCONFINED,
    WITH_TOKEN,
    attach_type_0,
    reach,
    why,
)
from ..values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Finding(Value):
    """A doubt about the `names` in the delegate_* `option`, or about all of it if there are none.

    `code` is the doubt's name for programs; `reason` and `fix` are the two halves of a sentence.
    """

    __slots__ = ("code", "fix", "names", "option", "reason")
    code: str
    option: str
    reason: str
    fix: str
    names: tuple[str, ...]

    def __init__(
        self, *, code: str, option: str, reason: str, fix: str, names: "Iterable[str]" = ()
    ) -> None:
        super().__init__(code=code, option=option, reason=reason, fix=fix, names=tuple(names))

    def __str__(self) -> str:
        return f"{self.option}: {self.reason}; {self.fix}"


class _Delegation:
    """The names that `masks` delegate on a kernel with these `enums`."""

    def __init__(self, masks: "Mapping[str, int]", enums: "Mapping[str, Enum]") -> None:
        self._masks = masks
        self._enums = enums

    def some(self, option: str) -> bool:
        return bool(self._masks.get(option))

    def has(self, option: str, name: str) -> bool:
        value = self._enums[option].values.get(name)
        return value is not None and bool(self._masks.get(option, 0) >> value & 1)

    def any_of(self, option: str, names: "Iterable[str]") -> list[str]:
        return [name for name in names if self.has(option, name)]

    def names(self, option: str) -> list[str]:
        names = self._enums[option].names
        return [names[value] for value in sorted(names) if self.has(option, names[value])]

    def all(self, option: str) -> bool:
        known = self._enums[option].known
        return self._masks.get(option, 0) & known == known


def lint(
    masks: "Mapping[str, int]", enums: "Mapping[str, Enum]", *, confined: bool
) -> tuple[Finding, ...]:
    """What is doubtful about delegating `masks` on the kernel of `enums`.

    `confined` says whether the grant is confined, or would be if it hasn't been decided yet.
    """
    given = _Delegation(masks, enums)
    return (
        *_commands(given),
        *_pairs(given),
        *_attach_types(given),
        *_libbpf(given),
        *_attaching(given),
        *_reach(given, confined=confined),
    )


def _commands(given: _Delegation) -> "Iterator[Finding]":
    idle = [name for name in given.names(CMDS.option) if name not in WITH_TOKEN]
    if idle and not given.all(CMDS.option):
        yield Finding(
            code="command-without-token",
            option=CMDS.option,
            names=idle,
            reason=f"{_list(idle)} can't be used with a token, so delegating it has no effect",
            fix=f"keep only those of {_list(WITH_TOKEN)} that are needed",
        )


def _pairs(given: _Delegation) -> "Iterator[Finding]":
    for option, command, what in (
        (MAPS.option, "map_create", "map types"),
        (PROGS.option, "prog_load", "program types"),
        (ATTACHS.option, "prog_load", "attach types"),
    ):
        if given.some(option) and not given.has(CMDS.option, command):
            yield Finding(
                code=f"{option}-without-{command}",
                option=option,
                reason=f"{what} have no effect without the command {command}",
                fix=f"add {command} to {CMDS.option}",
            )
    for option, command in ((MAPS.option, "map_create"), (PROGS.option, "prog_load")):
        if given.has(CMDS.option, command) and not given.some(option):
            yield Finding(
                code=f"{command}-without-{option}",
                option=CMDS.option,
                names=(command,),
                reason=f"{command} with no type to go with it does nothing",
                fix=f"add {option}",
            )
    if given.some(PROGS.option) and not given.some(ATTACHS.option):
        yield Finding(
            code="progs-without-attachs",
            option=PROGS.option,
            reason="the kernel loads a program only if its attach type is delegated too, even 0",
            fix=f"add {ATTACHS.option}, with cgroup_inet_ingress (0) for program types that have "
            "no attach type",
        )
    if given.some(ATTACHS.option) and not given.some(PROGS.option):
        yield Finding(
            code="attachs-without-progs",
            option=ATTACHS.option,
            reason="attach types have no effect without program types",
            fix=f"add {PROGS.option}",
        )
    stored = given.any_of(MAPS.option, MAPS_WITH_BTF)
    if stored and not given.has(CMDS.option, "btf_load"):
        yield Finding(
            code="maps-without-btf",
            option=MAPS.option,
            names=stored,
            reason=f"{_list(stored)} can't be created without BTF",
            fix=f"add btf_load to {CMDS.option}",
        )


def _attach_types(given: _Delegation) -> "Iterator[Finding]":
    if not given.some(ATTACHS.option) or given.has(ATTACHS.option, "cgroup_inet_ingress"):
        return
    programs = given.names(PROGS.option)
    zero = [name for name in programs if attach_type_0(name) == ALWAYS]
    if zero:
        yield Finding(
            code="attach-type-0",
            option=ATTACHS.option,
            reason=f"{_list(zero)} load with attach type 0, which is cgroup_inet_ingress",
            fix="add cgroup_inet_ingress",
        )
    maybe = [name for name in programs if attach_type_0(name) == MAYBE]
    probe = given.has(PROGS.option, "cgroup_sock") and given.has(
        ATTACHS.option, "cgroup_inet_sock_create"
    )
    if maybe and not probe:
        yield Finding(
            code="attach-type-dropped",
            option=ATTACHS.option,
            reason="libbpf can't find out whether the kernel supports attach types, and so loads "
            f"{_list(maybe)} with attach type 0, which is cgroup_inet_ingress",
            fix="add cgroup_inet_ingress",
        )


def _libbpf(given: _Delegation) -> "Iterator[Finding]":
    if not given.has(CMDS.option, "prog_load") or not given.some(PROGS.option):
        return
    probes = given.any_of(PROGS.option, ("socket_filter", "tracepoint"))
    if not probes or not given.has(ATTACHS.option, "cgroup_inet_ingress"):
        yield Finding(
            code="libbpf-probe",
            option=PROGS.option,
            names=probes,
            reason="libbpf 1.4 to 1.7 first loads a socket_filter or a tracepoint program with "
            "attach type 0, and loads nothing else if that fails",
            fix="add socket_filter, and cgroup_inet_ingress to delegate_attachs",
        )
    if not given.has(CMDS.option, "btf_load"):
        yield Finding(
            code="without-btf",
            option=CMDS.option,
            reason="without btf_load libbpf drops the BTF of maps and programs, and those that "
            "need BTF fail to load",
            fix="add btf_load",
        )


def _attaching(given: _Delegation) -> "Iterator[Finding]":
    if not given.any_of(PROGS.option, BY_PERF_EVENT):
        return
    from ..bpf import attaching  # Imported here, since most grants of the hook have none of these.

    by_perf = attaching.types_by_perf_event(given.names(PROGS.option), given.names(ATTACHS.option))
    if by_perf:
        yield Finding(
            code=attaching.PERF_ATTACH,
            option=PROGS.option,
            names=by_perf,
            reason=f"{_list(by_perf)}: {attaching.WHY}",
            fix=attaching.FIX,
        )


def _reach(given: _Delegation, *, confined: bool) -> "Iterator[Finding]":
    takes = " (which needs a rule with confined: false)" if confined else ""
    for option in (CMDS.option, MAPS.option, PROGS.option):
        host = [
            name for name in given.names(option) if reach(option, name, confined=confined) == HOST
        ]
        held = [
            name
            for name in host
            if option == PROGS.option and reach(option, name, confined=True) != HOST
        ]
        for name in host:
            if name in held:
                continue
            yield Finding(
                code=REACHES_BEYOND,
                option=option,
                names=(name,),
                reason=f"{name} {why(name)}",
                fix=f"leave out {name} unless the container is trusted with the kernel{takes}",
            )
        if held:
            yield Finding(
                code=REACHES_BEYOND,
                option=option,
                names=held,
                reason=f"{_list(held)}: {UNCONFINED}",
                fix=CONFINE,
            )
    if given.has(PROGS.option, "struct_ops"):
        yield Finding(
            code="struct-ops-members",
            option=ATTACHS.option,
            reason="a struct_ops program is loaded with the index of its member in the kernel's "
            "struct as the attach type",
            fix="delegate the attach types with these numbers, which begin with 0 "
            "(cgroup_inet_ingress)",
        )


def _list(names: "Iterable[str]") -> str:
    return ", ".join(names)
