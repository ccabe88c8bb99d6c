"""The shipped profiles, confined: libbpf loads what each is for through a token that is held."""

from functools import partial
from pathlib import Path
from typing import Any, Final

from oci_bpf_hook.guard.lsm import load as guard
from oci_bpf_hook.kernel import process
from oci_bpf_hook.kernel.enums import VMLINUX
from tests.consumer.load import Libbpf, load
from tests.support.consumer import library
from tests.support.scratch import Scratch, io

from .cases import ENDS, Context, on
from .container import as_root
from .guarded import built_in_policy

# The objects of tests/consumer that each is for.  The other profiles, tracing and struct-ops-tcp,
# are for programs that no confined token loads.
OBJECTS: Final = {
    "socket-filter": ("socket_filter",),
    "xdp": ("xdp_firewall", "xdp_redirect", "xdp_frags"),
    "tc": ("tc", "tcx"),
    "cgroup-network": ("cgroup_skb", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt"),
    "sk-lookup": ("sk_lookup",),
}
_BTF: Final = "sys/kernel/btf"


def _loaded(context: Context, profile: str) -> dict[str, Any]:
    """What came of the objects of a profile, in a container that asks for it."""
    capabilities = [process.CAP_BPF]
    if profile != "socket-filter":
        capabilities.append(process.CAP_NET_ADMIN)
    libbpf = Libbpf(str(library()))
    with (
        built_in_policy(),
        Scratch(network=True, tree=("sys/fs/bpf", _BTF, "objects")) as container,
    ):
        (container.root / _BTF / "vmlinux").write_bytes(Path(VMLINUX).read_bytes())
        for name in OBJECTS[profile]:
            content = (context.files / f"{name}.o").read_bytes()
            (container.root / "objects" / name).write_bytes(content)
        done = container.hook(io(profile=profile))
        assert done.returncode == 0, done.stderr
        return {
            name: as_root(
                container,
                partial(load, libbpf, f"/objects/{name}"),
                capabilities=capabilities,
            )
            for name in OBJECTS[profile]
        }


@on(*ENDS)
def case_confined(context: Context) -> None:
    """Each object of each profile is loaded, with a token, and is as its author meant it."""
    guard.turn_on()
    try:
        for profile in OBJECTS:
            for name, report in _loaded(context, profile).items():
                assert report["result"] == "ok", (profile, name, report["log"])
                assert report["token"], (profile, name)
    finally:
        guard.turn_off()
