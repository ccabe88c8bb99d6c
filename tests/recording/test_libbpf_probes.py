"""libbpf's probes, told from a program's own calls.

The calls are those that libbpf 1.6 makes for an object with global data, as they were recorded;
what newer and older releases make is of the same form.
"""

from typing import Any

from oci_bpf_hook.recording import libbpf_probes
from oci_bpf_hook.recording.call import Call, code, make
from oci_bpf_hook.recording.libbpf_probes import Teller

RETURN_0 = "b7000000000000009500000000000000"
GLOBAL_DATA = "182100000e00000000000000100000007a0100002a000000b7000000000000009500000000000000"
READ_KERNEL = (
    "bfa100000000000007010000f8ffffffb702000008000000"
    "b70300000000000085000000710000009500000000000000"
)
ARG_CTX = "8510000001000000950000000000000085000000ad0000009500000000000000"


def prog(prog_type: int, attach: int, text: str, *, dressed: bool = False, name: str = "") -> Call:
    instructions = bytes.fromhex(text)
    shape = (len(instructions) // 8, int(dressed), 0)
    fields: dict[str, Any] = {"prog_type": prog_type, "attach_type": attach, "shape": shape}
    fields |= {"pid": 1, "tid": 1, "cmd": 5, "name": name, "token": True, "result": 3}
    return make(**fields, **code(instructions))


def array(*shape: int, name: str = "") -> Call:
    return make(pid=1, tid=1, cmd=0, map_type=2, shape=shape, token=True, name=name, result=3)


def btf(size: int) -> Call:
    return make(pid=1, tid=1, cmd=18, shape=(size,), token=True, result=3)


def other(cmd: int) -> Call:
    return make(pid=1, tid=1, cmd=cmd, result=-9)


LOADING = prog(1, 0, RETURN_0)
VALUE = array(4, 32, 1, 0)


def told(*calls: Call) -> list[str]:
    """What each of the calls of one thread is told to be."""
    teller = Teller()
    found = [pair for call in calls for pair in teller.tell(call)]
    found += teller.end()
    assert [call for call, _ in found] == list(calls)
    return [probe for _, probe in found]


def test_an_object_with_global_data() -> None:
    assert told(
        other(36),
        prog(1, 0, "85000000a00000009500000000000000"),
        LOADING,
        prog(1, 0, RETURN_0, name="libbpf_nametest"),
        array(4, 4, 1, 1024),
        btf(81),
        prog(2, 0, ARG_CTX, dressed=True),
        btf(3714),
        array(4, 8, 256, 0),
        VALUE,
        prog(1, 0, GLOBAL_DATA),
        array(4, 4, 1, 1024),
        other(2),
        prog(5, 0, READ_KERNEL),
        prog(9, 2, RETURN_0),
        prog(6, 37, RETURN_0, dressed=True),
        VALUE,
        LOADING,
        other(35),
        other(35),
    ) == [
        "",
        libbpf_probes.MEMCG_ACCOUNT,
        libbpf_probes.LOADING,
        libbpf_probes.PROG_NAME,
        libbpf_probes.ARRAY_MMAP,
        libbpf_probes.BTF,
        libbpf_probes.ARG_CTX_TAG,
        "",
        "",
        libbpf_probes.GLOBAL_DATA,
        libbpf_probes.GLOBAL_DATA,
        "",  # Its own data, of four bytes.
        "",
        libbpf_probes.PROBE_READ_KERN,
        libbpf_probes.EXP_ATTACH_TYPE,
        "",
        libbpf_probes.PROG_BIND_MAP,
        libbpf_probes.PROG_BIND_MAP,
        "",
        "",
    ]


def test_by_name() -> None:
    # Without a token libbpf's maps keep their names.
    assert told(array(4, 32, 1, 0, name="libbpf_global"), prog(1, 0, GLOBAL_DATA)) == [
        libbpf_probes.GLOBAL_DATA,
        libbpf_probes.GLOBAL_DATA,
    ]
    assert told(array(4, 4, 1, 1024, name="libbpf_mmap")) == [libbpf_probes.ARRAY_MMAP]


def test_what_is_attached_to_nothing() -> None:
    assert told(prog(5, 0, RETURN_0), other(28)) == [libbpf_probes.PERF_LINK, ""]
    assert told(prog(2, 48, RETURN_0), other(28)) == [libbpf_probes.UPROBE_MULTI_LINK, ""]
    assert told(prog(5, 0, RETURN_0), LOADING) == [libbpf_probes.LOADING] * 2


def test_a_program_that_does_nothing_either() -> None:
    """What libbpf loads for an object has BTF, or the kernel's version."""
    for kind, attach in ((1, 0), (5, 0), (9, 2), (2, 48)):
        own = prog(kind, attach, RETURN_0, dressed=True)
        assert told(own, other(28)) == ["", ""]


def test_maps_that_look_alike() -> None:
    assert told(VALUE, VALUE, other(2)) == ["", "", ""]
    assert told(VALUE) == [""]
    assert told(array(4, 4, 1, 1024)) == [""]
    assert told(VALUE, prog(1, 0, RETURN_0, dressed=True)) == ["", ""]
    assert told(array(4, 4, 1, 0), prog(1, 0, GLOBAL_DATA)) == ["", libbpf_probes.GLOBAL_DATA]


def test_arena() -> None:
    # A load of 64 bits with an offset beyond all that older kernels take.
    far = "182100000e00000000000000000000407a0100002b000000b7000000000000009500000000000000"
    assert told(VALUE, prog(1, 0, far)) == [libbpf_probes.LDIMM64_FULL_RANGE_OFF] * 2


def test_cut_short() -> None:
    call = make(pid=1, tid=1, cmd=5, prog_type=1, attach_type=0, shape=(2, 0, 0))
    assert told(call) == [""], "its instructions couldn't be read"
