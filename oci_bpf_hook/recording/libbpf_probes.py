"""Tells libbpf's probes from a program's own calls, by what they look like.

Before it loads an object, libbpf tries what the kernel can do, with maps and programs that are the
same in every release (libbpf: src/features.c, and src/libbpf.c, bpf_object__probe_loading; 1.4 to
1.8).  Under a token they have no names, so they are recognised by their instructions, their sizes,
and the calls before and after them.  A program that just returns 0 has the same instructions as
three of them, but comes with BTF or a kernel's version, as everything that libbpf loads for an
object does.

A recording is read on the machine that made it, so the instructions have our byte order.
"""

from _struct import Struct
from collections.abc import Iterator

from .call import BTF_LOAD, MAP_CREATE, PROG_LOAD, Call

# What a probe finds out, by libbpf's name for it.
LOADING = "loading"
PROG_NAME = "prog_name"
GLOBAL_DATA = "global_data"
ARRAY_MMAP = "array_mmap"
BTF = "btf"
EXP_ATTACH_TYPE = "exp_attach_type"
PROBE_READ_KERN = "probe_read_kern"
PROG_BIND_MAP = "prog_bind_map"
PERF_LINK = "perf_link"
UPROBE_MULTI_LINK = "uprobe_multi_link"
BPF_COOKIE = "bpf_cookie"
ARG_CTX_TAG = "arg_ctx_tag"
LDIMM64_FULL_RANGE_OFF = "ldimm64_full_range_off"
MEMCG_ACCOUNT = "memcg_account"
PROBES = (
    *(LOADING, PROG_NAME, GLOBAL_DATA, ARRAY_MMAP, BTF, EXP_ATTACH_TYPE, PROBE_READ_KERN),
    *(PROG_BIND_MAP, PERF_LINK, UPROBE_MULTI_LINK, BPF_COOKIE, ARG_CTX_TAG),
    *(LDIMM64_FULL_RANGE_OFF, MEMCG_ACCOUNT),
)

# enum bpf_map_type, bpf_prog_type, bpf_attach_type and bpf_cmd, which are ABI.
_ARRAY = 2
_SOCKET_FILTER, _KPROBE, _TRACEPOINT, _CGROUP_SOCK = 1, 2, 5, 9
_INET_SOCK_CREATE, _UPROBE_MULTI = 2, 48
_LINK_CREATE, _PROG_BIND_MAP = 28, 35
_MMAPABLE = 1 << 10
_NAMES = {
    "libbpf_nametest": PROG_NAME,
    "libbpf_global": GLOBAL_DATA,
    "libbpf_mmap": ARRAY_MMAP,
    "libbpf_det_bind": PROG_BIND_MAP,
    "det_arg_ctx": ARG_CTX_TAG,
    "global_reloc": LDIMM64_FULL_RANGE_OFF,
}
_VALUE_32 = (4, 32, 1, 0)
_MMAP = (4, 4, 1, _MMAPABLE)
# The largest BTF of a probe has 146 bytes (1.6), and every object's has more than this.
_BTF_MAX = 160
_INSTRUCTION = Struct("=BBhi")
# The longest probe's number of instructions.
_PROBE_MAX = 8
_CALL, _EXIT, _MOV_IMM, _LD_IMM64 = 0x85, 0x95, 0xB7, 0x18
# Helpers by number: bpf_ktime_get_coarse_ns, bpf_probe_read_kernel, bpf_get_attach_cookie.
_COARSE_NS, _READ_KERNEL, _ATTACH_COOKIE = 160, 113, 174


class Teller:
    """Takes the calls of one thread, in their order, and returns each with its probe or "".

    A map can belong to one of several probes, or to the program, until the next call is known; so a
    call is returned one call late, and the last one by `end`.
    """

    def __init__(self) -> None:
        self._held: tuple[Call, str] | None = None
        self._before = ""

    def tell(self, call: Call) -> Iterator[tuple[Call, str]]:
        """Take the thread's next call; returns those before it that are certain now."""
        probe = self._by_place(call) or _alone(call)
        if self._held is not None:
            held, told = self._held
            if not told and _is_map(held, _VALUE_32) and probe in _WITH_MAP:
                told = probe
            elif _trivial(held) and call.cmd in _BY_NEXT_CALL:
                # Probes load the same program; the call after it tells which probe it is.
                told = _BY_NEXT_CALL[call.cmd].get(held.prog_type or 0, told)
            yield held, told
        self._held = call, probe
        self._before = probe

    def end(self) -> Iterator[tuple[Call, str]]:
        """The last call, once no other follows it."""
        if self._held is not None:
            yield self._held
            self._held = None

    def _by_place(self, call: Call) -> str:
        """The probe that can be told only by the calls before this one, or ""."""
        if _is_map(call, _MMAP) and self._before and self._before != GLOBAL_DATA:
            # For an object's own data of 4 bytes, another map would have been made before.
            return ARRAY_MMAP
        if self._held is None or not _is_map(self._held[0], _VALUE_32):
            return ""
        if _trivial(call) and call.prog_type == _SOCKET_FILTER:
            return PROG_BIND_MAP
        return ""


# Probes that make a map and then a program with it.
_WITH_MAP = (GLOBAL_DATA, PROG_BIND_MAP, LDIMM64_FULL_RANGE_OFF)
_BY_NEXT_CALL = {
    _LINK_CREATE: {_TRACEPOINT: PERF_LINK, _KPROBE: UPROBE_MULTI_LINK},
    _PROG_BIND_MAP: {_SOCKET_FILTER: PROG_BIND_MAP},
}


def _alone(call: Call) -> str:
    """The probe that `call` is regardless of the calls around it, or ""."""
    if call.name in _NAMES:
        return _NAMES[call.name]
    if call.cmd == BTF_LOAD:
        return BTF if call.shape[0] <= _BTF_MAX else ""
    if call.cmd != PROG_LOAD:
        return ""
    code = _taken_apart(call)
    if call.prog_type == _KPROBE and code == _ARG_CTX:
        return ARG_CTX_TAG
    if call.shape[1]:
        return ""
    if call.prog_type == _SOCKET_FILTER and code[:1] == [(_LD_IMM64, 0)] and len(code) == 5:
        return GLOBAL_DATA if (0x7A, 42) in code else LDIMM64_FULL_RANGE_OFF
    return _BY_CODE.get((call.prog_type, call.attach_type, tuple(code)), "")


def _taken_apart(call: Call) -> list[tuple[int, int]]:
    """The code and immediate of each instruction; 0 for the fd in a load of 64 bits."""
    count = len(call.instructions) // _INSTRUCTION.size
    found = []
    for at in range(count if count == call.shape[0] <= _PROBE_MAX else 0):
        code, _, _, immediate = _INSTRUCTION.unpack_from(call.instructions, at * 8)
        found.append((code, 0 if code == _LD_IMM64 else immediate))
    return found


_RETURN_0 = ((_MOV_IMM, 0), (_EXIT, 0))
_ARG_CTX = [(_CALL, 1), (_EXIT, 0), (_CALL, 173), (_EXIT, 0)]
_READ = ((0xBF, 0), (0x07, -8), (_MOV_IMM, 8), (_MOV_IMM, 0), (_CALL, _READ_KERNEL), (_EXIT, 0))
_BY_CODE: dict[tuple[int | None, int | None, tuple[tuple[int, int], ...]], str] = {
    (_SOCKET_FILTER, 0, ((_CALL, _COARSE_NS), (_EXIT, 0))): MEMCG_ACCOUNT,
    (_SOCKET_FILTER, 0, _RETURN_0): LOADING,
    (_TRACEPOINT, 0, _RETURN_0): LOADING,
    (_CGROUP_SOCK, _INET_SOCK_CREATE, _RETURN_0): EXP_ATTACH_TYPE,
    (_KPROBE, _UPROBE_MULTI, _RETURN_0): UPROBE_MULTI_LINK,
    (_TRACEPOINT, 0, _READ): PROBE_READ_KERN,
    (_TRACEPOINT, 0, ((_CALL, _ATTACH_COOKIE), (_EXIT, 0))): BPF_COOKIE,
}


def _trivial(call: Call) -> bool:
    return call.cmd == PROG_LOAD and not call.shape[1] and tuple(_taken_apart(call)) == _RETURN_0


def _is_map(call: Call, shape: tuple[int, ...]) -> bool:
    return call.cmd == MAP_CREATE and call.map_type == _ARRAY and call.shape == shape
