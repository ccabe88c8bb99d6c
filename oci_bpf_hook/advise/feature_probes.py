"""Says what loaders load for themselves, to find out what the kernel can do.

A refused probe is never reported: the loader behaves as if the kernel lacked the feature, and so
leaves something out or loads something else.  This module knows which probe asks for what, and
when; its texts say what happens without it.  Sources: libbpf, src/features.c, probe_kern_*(), and
src/libbpf.c, bpf_object__probe_loading(); the feature tests of cilium/ebpf.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from .sections import CILIUM, LIBBPF, ZERO

# Releases that know tokens.  All but the last do the first probe.
RELEASES = ("1.4", "1.5", "1.6", "1.7", "1.8")
_WITHOUT_FIRST_PROBE = ("1.8",)
# The helpers bpf_probe_read_user, _kernel, _user_str and _kernel_str, by number.
READS = {112, 113, 114, 115}
# bpf_probe_read() and bpf_probe_read_str(), which take their place if the probe fails.
FALLBACKS = {4, 45}
# The types whose programs may call these two (Linux: kernel/trace/bpf_trace.c,
# bpf_tracing_func_proto); any other program that calls them is refused.
_WITH_FALLBACKS = {
    *("kprobe", "lsm", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "syscall"),
    *("tracepoint", "tracing"),
}
# The machines (uname(2)'s names) on which no address is both a process's and the kernel's.  There
# these two helpers see from the address whose memory is meant, and read it as the other four would
# (Linux: bpf_probe_read_compat(), which depends on CONFIG_ARCH_HAS_NON_OVERLAPPING_ADDRESS_SPACE).
_READ_ALIKE = ("x86_64", "aarch64")
LEFT_OUT = "probe-left-out"
_COOKIE = "LINUX_HAS_BPF_COOKIE"


class Probe(NamedTuple):
    """A program of the type `prog` with the attach type `attach`, and maps of the types `maps`."""

    prog: str
    attach: str
    maps: tuple[str, ...]
    why: str


_GLOBAL_DATA = Probe(
    "socket_filter",
    ZERO,
    ("array",),
    "libbpf's probe for global variables, without which it makes no map for them",
)
_PROBE_READ = Probe(
    "tracepoint",
    ZERO,
    (),
    "libbpf's probe for bpf_probe_read_kernel(), without which it uses bpf_probe_read() instead",
)
_BPF_COOKIE = Probe(
    "tracepoint",
    ZERO,
    (),
    f"libbpf's probe for {_COOKIE}, which is false if the probe fails",
)
# FEAT_EXP_ATTACH_TYPE, the only probe that isn't included unless it is asked for.
ATTACH_TYPES = Probe(
    "cgroup_sock",
    "cgroup_inet_sock_create",
    (),
    "libbpf's probe for attach types; if it fails, libbpf replaces optional ones by 0",
)
_FIRST = "libbpf's first probe; if it fails, versions up to 1.7 load nothing"
_CILIUM_READ = Probe(
    "kprobe",
    ZERO,
    (),
    "cilium/ebpf's probe for bpf_probe_read_kernel(), without which it uses bpf_probe_read() "
    "instead",
)
_CILIUM_BTF = Probe(
    "socket_filter",
    ZERO,
    (),
    "cilium/ebpf's probe for BTF of functions, without which it leaves that out",
)


def read_alike(progs: Iterable[str], machine: str) -> bool:
    """Whether programs of the types `progs`, which read memory, read the same without the probe.

    `machine` is uname(2)'s name for the machine on which they run.
    """
    return machine in _READ_ALIKE and _WITH_FALLBACKS.issuperset(progs)


def left_out(loader: str, readers: Sequence[str]) -> tuple[str, str]:
    """The type of program that `loader` probes with, and the sentence that it is left out.

    The sentence is about the programs `readers`, which read alike without it.
    """
    prog = (_CILIUM_READ if loader == CILIUM else _PROBE_READ).prog
    return prog, (
        f"{', '.join(readers)}: {loader} probes for bpf_probe_read_kernel() with a program of the "
        f"type {prog}, which is left out here; if that is refused, it uses bpf_probe_read() "
        "instead, which reads the same on x86_64 and arm64, but not on every architecture"
    )


def asked(
    loader: str, *, variables: bool, explained: bool, reads: bool, externs: Iterable[str]
) -> list[Probe]:
    """The probes that change what is loaded of an object.

    `variables` says whether it has variables, `explained` whether it has BTF of its functions,
    `reads` whether its programs call any of READS and wouldn't read alike without the probe;
    `externs` is what it takes from the kernel's configuration.
    """
    if loader == CILIUM:
        return [*([_CILIUM_READ] if reads else []), *([_CILIUM_BTF] if explained else [])]
    if loader != LIBBPF:
        return []
    return [
        *([_GLOBAL_DATA] if variables else []),
        *([_PROBE_READ] if reads else []),
        *([_BPF_COOKIE] if _COOKIE in externs else []),
    ]


def first(release: str | None, *progs: Collection[str]) -> Probe | None:
    """What libbpf loads before anything else: a socket filter or, if that is refused, a tracepoint.

    Either will do.  Each of `progs` has program types that are delegated in any case, and this is
    the one in the first of them that has either.  `release` None stands for all releases.
    """
    if release in _WITHOUT_FIRST_PROBE:
        return None
    for delegated in progs:
        for prog in ("socket_filter", "tracepoint"):
            if prog in delegated:
                return Probe(prog, ZERO, (), _FIRST)
    return Probe("socket_filter", ZERO, (), _FIRST)
