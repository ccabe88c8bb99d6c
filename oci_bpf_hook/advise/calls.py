"""What the kernel asks for in each bpf(2) call that takes a token: bits and capabilities.

The capabilities are those in the token's user namespace: CAP_BPF for every call, and more for some
types (Linux: kernel/bpf/syscall.c, is_net_admin_prog_type, is_perfmon_prog_type, map_create).
"""

from collections.abc import Iterable

from ..bpf.capabilities import MAPS_WITH_NET_ADMIN, takes
from ..bpf.names import ATTACHS, CMDS, MAPS, PROGS
from .needs import CAPABILITY, Reason


def prog_load(prog: str, attach: str, *, source: str, kind: str, why: str) -> tuple[Reason, ...]:
    """What loading a program of the type `prog` with the expected attach type `attach` takes."""
    bits = [(CMDS.option, "prog_load"), (PROGS.option, prog), (ATTACHS.option, attach)]
    capabilities = ["bpf", *(name.lower() for name in takes(prog))]
    return _reasons(bits, capabilities, source=source, kind=kind, why=why)


def map_create(map_type: str, *, source: str, kind: str, why: str) -> tuple[Reason, ...]:
    """What making a map of the type `map_type` takes."""
    bits = [(CMDS.option, "map_create"), (MAPS.option, map_type)]
    capabilities = ["bpf", *(["net_admin"] if map_type in MAPS_WITH_NET_ADMIN else [])]
    return _reasons(bits, capabilities, source=source, kind=kind, why=why)


def btf_load(*, source: str, kind: str, why: str) -> tuple[Reason, ...]:
    """What loading the BTF of an object takes."""
    return _reasons([(CMDS.option, "btf_load")], ["bpf"], source=source, kind=kind, why=why)


def btf_get_fd_by_id(*, source: str, kind: str, why: str) -> tuple[Reason, ...]:
    """What getting another program's BTF takes: CAP_SYS_ADMIN in the token's user namespace, too.

    Linux: 0de445d18e0b, "bpf: BPF token support for BPF_BTF_GET_FD_BY_ID", 6.15.
    """
    bits = [(CMDS.option, "btf_get_fd_by_id")]
    return _reasons(bits, ["sys_admin"], source=source, kind=kind, why=why)


def _reasons(
    bits: Iterable[tuple[str, str]],
    capabilities: Iterable[str],
    *,
    source: str,
    kind: str,
    why: str,
) -> tuple[Reason, ...]:
    named = [*bits, *((CAPABILITY, name) for name in capabilities)]
    return tuple(
        Reason(option=option, name=name, source=source, kind=kind, why=why)
        for option, name in named
    )
