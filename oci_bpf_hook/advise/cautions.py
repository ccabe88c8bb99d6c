"""Says what to beware of: what no delegation gives, and what goes beyond the container."""

from collections.abc import Iterable, Iterator

from ..bpf.attaching import PERF_ATTACH, PERF_BUFFER, by_perf_event, perf_attach, perf_buffer
from ..bpf.btf_types import struct_members
from ..bpf.names import ATTACHS, CMDS, KINDS, MAPS, PROGS
from ..bpf.type_facts import (
    CGROUP,
    HOST,
    HOST_CGROUP,
    HOST_NETWORK,
    NETWORK,
    REACHES_BEYOND,
    reach,
    why,
)
from ..values import Value
from . import sections
from .kernel import Kernel
from .maps import LEGACY, Map
from .needs import CAPABILITY, Caution, Needs
from .objects import Object, Program
from .sections import AYA, CILIUM, LIBBPF, ZERO

_F_ZERO_SEED = 1 << 6
_PERF_EVENT_ARRAY = 4


# The types of programs that read packets, and so compare and subtract pointers.
_PACKETS = {
    *("xdp", "sched_cls", "sched_act", "cgroup_skb", "sk_skb", "sk_msg", "flow_dissector"),
    *("lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "netfilter"),
}


class Loads(Value):
    """What is loaded of an object: each program with its type, and its attach type or None.

    `unwanted` are the names of the programs that the user has excluded.
    """

    __slots__ = ("found", "programs", "unwanted")
    found: Object
    unwanted: frozenset[str]
    programs: tuple[tuple[Program, str, str | None], ...]


def find(loads: Loads, needs: Needs, loader: str, kernel: Kernel) -> list[Caution]:
    """What there is to say about one object, whose own needs are `needs`."""
    found = loads.found
    bits = needs.bits
    progs = sorted(name for option, name in bits if option == PROGS.option)
    texts = [
        *_unloadable(loads, loader),
        *_attaching(loads),
        *(text for one in found.maps for text in _map(one, loader, kernel)),
        *_operations(found, kernel),
        *_names(needs, kernel),
        *_beyond(bits),
        *_verifier(progs, perfmon=(CAPABILITY, "perfmon") in bits),
    ]
    return [Caution(code=code, source=found.source, text=text) for code, text in texts]


def _unloadable(loads: Loads, loader: str) -> Iterator[tuple[str, str]]:
    found = loads.found
    if loader == AYA:
        yield _say("loader-without-token", "aya doesn't use tokens yet, so it gets EPERM")
    if loader == CILIUM:
        yield _say(
            "newer-loader",
            "cilium/ebpf has used tokens since 0.22, and a program that was built with an older "
            "release gets EPERM; go version -m PROGRAM shows the release",
        )
    loaded = {program for program, _, _ in loads.programs}
    static = [program.name for program in found.programs if program.static]
    if static and loader == LIBBPF:
        yield _say(
            "static-program",
            f"{_list(static)}: a static function has a section of its own, for which libbpf "
            "refuses the whole object",
        )
    for program in found.programs:
        if program in loaded or program.name in loads.unwanted:
            continue
        if sections.find(program.section, loader) is None:
            yield _say(
                "unknown-section",
                f'{loader} knows no type for SEC("{program.section}") of {program.name}; an '
                "application that sets the type itself needs more than is listed here",
            )
        elif not program.autoload and loader == LIBBPF:
            yield _say(
                "not-loaded",
                f'{program.name} is left out: SEC("?{program.section}") is loaded only if the '
                f"application says so; --only {program.name} tells what it takes",
            )
    if found.jump_tables and loader == LIBBPF:
        yield _say(
            "map-without-token",
            "libbpf still makes the maps of jump tables without the token, which fails; compile "
            "with -fno-jump-tables",
        )
    if any(name.startswith("CONFIG_") for name in found.externs):
        yield _say(
            "kernel-configuration",
            "its CONFIG_ variables are read from /proc/config.gz or /boot, so the container needs "
            "one of these",
        )
    if not (found.programs or found.maps or found.operations or found.jump_tables):
        yield _say("nothing", "there is no program and no map in it")


def _attaching(loads: Loads) -> Iterator[tuple[str, str]]:
    perf, tracefs, netlink = [], [], []
    for program, prog, attach in loads.programs:
        if by_perf_event(prog, attach):
            perf.append(program.name)
        if prog == "tracepoint":
            tracefs.append(program.name)
        if prog == "sched_cls" and attach == ZERO:
            netlink.append(program.name)
        if prog == "ext":
            yield _say(
                "newer-loader",
                f"{program.name} replaces a function of another program, whose BTF only libbpf "
                "1.6 or later gets with a token, and only from Linux 6.15 or later",
            )
    if perf:
        yield _say(PERF_ATTACH, perf_attach(perf))
    if tracefs:
        yield _say("tracefs", f"{_list(tracefs)}: attaching takes tracefs in the container")
    if netlink:
        yield _say(
            "netlink-attach",
            f"{_list(netlink)}: attaching by netlink takes a network namespace of the container's "
            "own; tcx/ingress and tcx/egress don't use netlink",
        )


def _map(one: Map, loader: str, kernel: Kernel) -> Iterator[tuple[str, str]]:
    if one.type not in kernel.names[MAPS.option].names or one.type == 0:
        yield _say("unknown-map", f"map {one.name} has the type {one.type}, which no kernel has")
    if one.kind == LEGACY and loader == LIBBPF:
        yield _say(
            "legacy-map",
            f"map {one.name} is defined in a section maps, which libbpf 1.0 and later refuse",
        )
    if one.flags & _F_ZERO_SEED:
        yield _say(
            "map-without-token",
            f"map {one.name} has BPF_F_ZERO_SEED, which takes CAP_SYS_ADMIN in the initial user "
            "namespace",
        )
    if one.type == _PERF_EVENT_ARRAY:
        yield _say(PERF_BUFFER, perf_buffer(f"map {one.name} is"))
    if one.pinned:
        yield _say("pinned", f"map {one.name} is pinned by its name, which takes a writable bpffs")


def _operations(found: Object, kernel: Kernel) -> Iterator[tuple[str, str]]:
    attachs = kernel.names[ATTACHS.option].names
    for ops in found.operations:
        members = struct_members(kernel.btf, ops.struct) if kernel.btf is not None else None
        if kernel.btf is None:
            why = "these can't be found out without the kernel's BTF; name one by --btf"
        elif members is None:
            why = f"the kernel has no struct {ops.struct}"
        else:
            beyond = [
                name
                for name in ops.programs
                if name not in members or members.index(name) not in attachs
            ]
            if not beyond:
                continue
            why = (
                f"{_list(beyond)}: the kernel's struct has no such member, or one without a bit "
                "of its own"
            )
        yield _say(
            "struct-ops-members",
            f"the attach types of {ops.name}'s programs are their members' numbers in the kernel's "
            f"struct {ops.struct}, and {why}",
        )


def _names(needs: Needs, kernel: Kernel) -> Iterator[tuple[str, str]]:
    lists = needs.lists(kernel.names)
    for kind in KINDS:
        for name in lists[kind.option]:
            if name not in kernel.known[kind.option].values:
                yield _say("not-in-kernel", f"this kernel has no {kind.what} {name}")


def _beyond(bits: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What a confined token with these `bits` reaches, and which of them it is never given."""
    far = {
        (option, name): reach(option, name, confined=True)
        for option, name in sorted(bits)
        if option in (CMDS.option, MAPS.option, PROGS.option)
    }
    for name in dict.fromkeys(name for (_, name), where in far.items() if where == HOST):
        yield _say(
            REACHES_BEYOND,
            f"{name} {why(name)}, so no confined token gets it: it takes a rule with confined: "
            "false",
        )
    network = [name for (_, name), where in far.items() if where == NETWORK]
    if network:
        yield _say(
            HOST_NETWORK,
            f"{_list(network)}: a container with the host's network attaches to the host's "
            "interfaces and sockets",
        )
    cgroup = [name for (_, name), where in far.items() if where == CGROUP]
    if cgroup:
        yield _say(
            HOST_CGROUP,
            f"{_list(cgroup)}: a container that sees the host's cgroups attaches to them",
        )


def _say(code: str, text: str) -> tuple[str, str]:
    return code, text


def _verifier(progs: list[str], *, perfmon: bool) -> Iterator[tuple[str, str]]:
    packets = [name for name in progs if name in _PACKETS]
    if packets and not perfmon:
        yield _say(
            "perhaps-perfmon",
            f"{_list(packets)}: the verifier allows some arithmetic with pointers only with "
            "CAP_PERFMON, such as their difference, or adding a length from the packet",
        )


def _list(names: list[str]) -> str:
    return ", ".join(names)
