"""The hook as an engine runs it, on a kernel with tokens and on one without."""

import re

from oci_bpf_hook.kernel import process
from tests.support.scratch import Scratch, assert_failed, io

from . import bpf
from .cases import TOKENS, Context, on
from .container import as_root

SOCKET_FILTER = 1
KPROBE = 2
ASKED = io(
    delegate_cmds="map_create:prog_load",
    delegate_maps="hash",
    delegate_progs="socket_filter",
    delegate_attachs="cgroup_inet_ingress",
)


@on("bookworm")
def case_a_kernel_without_tokens(context: Context) -> str:
    """The hook says so, with its exit code, and leaves the container as it was."""
    with Scratch() as container:
        done = container.hook(ASKED)
        assert_failed(done, 13, "it takes Linux 6.9 or later", container=container)
        return done.stderr


@on(*TOKENS)
def case_the_mount_is_as_asked(context: Context) -> str:
    """The masks that the kernel shows are those of the annotations."""
    with Scratch() as container:
        done = container.hook(ASKED)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        (mount,) = container.mounts()
        shown = dict(re.findall(r"(delegate_\w+)=([^, ]+)", mount))
        assert shown == {name.removeprefix("io.bpffs."): text for name, text in ASKED.items()}
        return mount


@on(*TOKENS)
def case_a_token_loads_what_was_delegated(context: Context) -> None:
    """A socket filter with CAP_BPF alone, and nothing else."""
    with Scratch(network=True) as container:
        done = container.hook(ASKED)
        assert done.returncode == 0, done.stderr

        def load(prog_type: int, *, token: bool) -> tuple[int, str]:
            through = bpf.token() if token else None
            loaded = bpf.prog_load(bpf.RETURN_0, prog_type, token=through)
            return loaded.errno, loaded.log

        bpf_alone = [process.CAP_BPF]
        through = as_root(
            container, lambda: load(SOCKET_FILTER, token=True), capabilities=bpf_alone
        )
        assert through == (0, "")
        assert as_root(container, lambda: load(SOCKET_FILTER, token=False))[0] != 0
        assert as_root(container, lambda: load(KPROBE, token=True))[0] != 0
