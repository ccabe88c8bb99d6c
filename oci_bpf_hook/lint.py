"""What is doubtful about a delegation that is valid: each finding with its reason and its fix.

The kernel takes all of this without a word, and the user finds out by an EPERM, or never.
Facts: kernel/bpf/token.c and syscall.c, and libbpf's features.c and libbpf.c (1.4 to 1.7).
"""

from .names import ATTACHS, CMDS, MAPS, PROGS, Enum
from .reach import CONFINE, HOST, REACHES_BEYOND, UNCONFINED, reach, why
from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# The commands in which the kernel looks at a token at all, by the release in which it began to.
TOKEN_SINCE = {
    "map_create": (6, 9),
    "prog_load": (6, 9),
    "btf_load": (6, 9),
    "btf_get_fd_by_id": (6, 15),
}
WITH_TOKEN = tuple(TOKEN_SINCE)
# Programs that libbpf loads with expected_attach_type 0, which is cgroup_inet_ingress and
# is asked for like any other attach type.
WITH_ATTACH_0 = (
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "perf_event",
    "cgroup_skb",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "lwt_seg6local",
    "raw_tracepoint",
    "raw_tracepoint_writable",
    "ext",
    "syscall",
)
# Programs whose declared attach type libbpf replaces by 0 where its probe of that feature,
# a cgroup_sock program, is refused (FEAT_EXP_ATTACH_TYPE).
MAYBE_ATTACH_0 = (
    "xdp",
    "sock_ops",
    "sk_skb",
    "sk_msg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_skb",
    "cgroup_sock",
    "cgroup_device",
)
# Map types that the kernel makes only with BTF for what is in them.
WITH_BTF = ("sk_storage", "struct_ops", "inode_storage", "task_storage", "cgrp_storage")
# What asks for more than CAP_BPF in the container's user namespace (is_net_admin_prog_type,
# is_perfmon_prog_type, map_create).
WITH_NET_ADMIN = (
    "sched_cls",
    "sched_act",
    "xdp",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "lwt_seg6local",
    "sk_skb",
    "sk_msg",
    "flow_dissector",
    "cgroup_device",
    "cgroup_sock",
    "cgroup_sock_addr",
    "cgroup_sockopt",
    "cgroup_sysctl",
    "sock_ops",
    "ext",
    "netfilter",
)
WITH_PERFMON = (
    "kprobe",
    "tracepoint",
    "perf_event",
    "raw_tracepoint",
    "raw_tracepoint_writable",
    "tracing",
    "lsm",
    "struct_ops",
    "ext",
)
MAPS_WITH_NET_ADMIN = ("sockmap", "sockhash", "devmap", "devmap_hash", "xskmap")


class Finding(Record):
    """`option` is the delegate_* option that it is about, and `names` what of it, if not all."""

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
    """Which names are delegated; where a kind's names aren't known, by its mask alone."""

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
    """What is doubtful about delegating `masks` on a kernel with all these `enums`.

    `confined` says whether the grant is, or where none is decided about would be.
    """
    given = _Delegation(masks, enums)
    return (
        *_commands(given),
        *_pairs(given),
        *_attach_types(given),
        *_libbpf(given),
        *_reach(given, confined=confined),
    )


def capabilities(masks: "Mapping[str, int]", enums: "Mapping[str, Enum]") -> tuple[str, ...]:
    """The capabilities, without CAP_, that it takes to use all of `masks`."""
    given = _Delegation(masks, enums)
    found = ["BPF"]
    if given.any_of(PROGS.option, WITH_NET_ADMIN) or given.any_of(MAPS.option, MAPS_WITH_NET_ADMIN):
        found.append("NET_ADMIN")
    if given.any_of(PROGS.option, WITH_PERFMON):
        found.append("PERFMON")
    return tuple(found)


def beyond_confined(masks: "Mapping[str, int]", enums: "Mapping[str, Enum]") -> dict[str, int]:
    """The bits of `masks` that a confined token is never given, by their options.

    Of program types that is every bit without a name as well.
    """
    found = {}
    for option in (CMDS.option, MAPS.option, PROGS.option):
        known = beyond = 0
        for value, name in enums[option].names.items():
            known |= 1 << value
            if reach(option, name, confined=True) == HOST:
                beyond |= 1 << value
        if option == PROGS.option:
            beyond |= ~known
        if mask := masks.get(option, 0) & beyond:
            found[option] = mask
    return found


def _commands(given: _Delegation) -> "Iterator[Finding]":
    idle = [name for name in given.names(CMDS.option) if name not in WITH_TOKEN]
    if idle and not given.all(CMDS.option):
        yield Finding(
            code="command-without-token",
            option=CMDS.option,
            names=idle,
            reason=f"the kernel asks for no token in {_list(idle)}, so delegating it does nothing",
            fix=f"keep what there is of {_list(WITH_TOKEN)}",
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
                reason=f"{what} are of no use without the command {command}",
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
            reason="to load a program the kernel asks for its attach type too, 0 included",
            fix=f"add {ATTACHS.option}, with cgroup_inet_ingress for types that have none",
        )
    if given.some(ATTACHS.option) and not given.some(PROGS.option):
        yield Finding(
            code="attachs-without-progs",
            option=ATTACHS.option,
            reason="attach types are of no use without program types",
            fix=f"add {PROGS.option}",
        )
    stored = given.any_of(MAPS.option, WITH_BTF)
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
    zero = given.any_of(PROGS.option, WITH_ATTACH_0)
    if zero:
        yield Finding(
            code="attach-type-0",
            option=ATTACHS.option,
            reason=f"{_list(zero)} load with attach type 0, which is cgroup_inet_ingress",
            fix="add cgroup_inet_ingress",
        )
    maybe = [name for name in given.any_of(PROGS.option, MAYBE_ATTACH_0) if name not in zero]
    probe = given.has(PROGS.option, "cgroup_sock") and given.has(
        ATTACHS.option, "cgroup_inet_sock_create"
    )
    if maybe and not probe:
        yield Finding(
            code="attach-type-dropped",
            option=ATTACHS.option,
            reason="libbpf can't tell whether the kernel takes attach types, and loads "
            f"{_list(maybe)} with 0, which is cgroup_inet_ingress",
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
            reason="libbpf 1.4 to 1.7 loads a socket_filter or a tracepoint program with attach "
            "type 0 before anything else, and gives up where it can't",
            fix="add socket_filter, and cgroup_inet_ingress to delegate_attachs",
        )
    if not given.has(CMDS.option, "btf_load"):
        yield Finding(
            code="without-btf",
            option=CMDS.option,
            reason="without btf_load libbpf drops the BTF of maps and programs, and what needs it "
            "fails",
            fix="add btf_load",
        )


def _reach(given: _Delegation, *, confined: bool) -> "Iterator[Finding]":
    takes = ", which takes a rule with confined: false" if confined else ""
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
                fix=f"take {name} away unless the container is trusted with the kernel{takes}",
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
            reason="the attach type of a struct_ops program is its member's number in the kernel's "
            "struct",
            fix="delegate the attach types with these numbers, from 0 (cgroup_inet_ingress) on",
        )


def _list(names: "Iterable[str]") -> str:
    return ", ".join(names)
