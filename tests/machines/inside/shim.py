"""The shim: its tokens are held by the guard as all others, and what it passes on unchanged."""

from typing import Final

from oci_bpf_hook.guard.lsm import load
from tests.support.scratch import Scratch

from . import bpf
from .cases import Context, on
from .guarded import NOT_LISTED, SOCKET_FILTER, confined, kfuncs, last, trusted

# A program that knows no tokens: what becomes of each program that it is given, and of the last one
# with a second union, a log's, after the first (BPF_COMMON_ATTRS).
_TRIES: Final = f"""
import ctypes, struct, sys
from oci_bpf_hook.kernel import bpf as numbers
from tests.machines.inside import bpf
for code in map(bytes.fromhex, sys.argv[1:]):
    print(bpf.prog_load(code, {SOCKET_FILTER}, log=False).errno)
libc, said = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(4096)
code = ctypes.create_string_buffer(bytes.fromhex("9500000000000000"))
license = ctypes.create_string_buffer(b"GPL")
attr = struct.pack(
    "=IIQQ120x", {SOCKET_FILTER}, 1, ctypes.addressof(code), ctypes.addressof(license)
)
common = ctypes.create_string_buffer(
    struct.pack("=QIIII", ctypes.addressof(said), len(said), 1, 0, 0)
)
libc.syscall(numbers.arch().bpf, numbers.BPF_PROG_LOAD | 1 << 16, attr, len(attr), common, 20)
print(ctypes.get_errno(), "R0 !read_ok" in said.value.decode())
"""


def _tried(context: Context, container: Scratch, *programs: bytes, shim: bool = True) -> list[str]:
    words = ["env", f"LIBBPF_BPF_TOKEN_PATH={container.root}/sys/fs/bpf", "PYTHONPATH=/checkout"]
    words += [f"LD_PRELOAD={context.files / 'shim.so'}"] if shim else []
    words += ["/usr/bin/python3", "-c", _TRIES, *(code.hex() for code in programs)]
    done = container.enter(*words)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.splitlines()


@on("trixie")
def case_the_guard_holds_its_tokens(context: Context) -> None:
    programs = (bpf.RETURN_0, kfuncs(*NOT_LISTED))
    load.turn_on()
    try:
        with confined() as container:
            assert _tried(context, container, *programs, shim=False)[:2] == ["1", "1"]
            assert _tried(context, container, *programs)[:2] == ["0", "1"]
            assert (last(container).reason, last(container).what) == ("kfunc", NOT_LISTED[0])
        with trusted() as container:
            assert _tried(context, container, *programs)[:2] == ["0", "0"]
    finally:
        load.turn_off()


@on("sid")
def case_a_second_union_is_passed_on(context: Context) -> None:
    """Linux 7.0 and later: the verifier's log is where that says."""
    with trusted() as container:
        assert _tried(context, container, shim=False) == ["1 False"]
        assert _tried(context, container) == ["13 True"]
