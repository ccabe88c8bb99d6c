"""What a test's container runs: a real libbpf that opens and loads objects, and says what came.

    /usr/bin/python3 -I -S load.py [--attach] LIBRARY OBJECT...

LIBRARY is a shared library with libbpf's C API: the extension module of the wheel pylibbpf has it,
and none of its Python is used. libbpf finds the token by itself. The output is one JSON object, a
key for each object file; what is in it is said in tests/support/consumer.py.

It needs nothing but the standard library, since that is all of Python that the container has.
"""

import ctypes
import errno
import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

LOOPBACK = 1
SO_ATTACH_BPF = 50
CALL = 0x85  # BPF_JMP | BPF_CALL


# Maps that have no size of their own: storage in something else's memory, and struct_ops.
SIZELESS = (19, 21, 24, 26, 28, 29, 32)
STACK_TRACE = 7
# A page, and a power of two, for want of the number that an application would set.
ENTRIES = 4096
FRAMES = 127 * 8


class OpenOptions(ctypes.Structure):
    """The beginning of struct bpf_object_open_opts."""

    _fields_ = (
        ("size", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", c_char_p),
    )


class ProgInfo(ctypes.Structure):
    """The beginning of struct bpf_prog_info, which is ABI."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", c_uint8 * 8),
        ("lengths", c_uint32 * 2),
        ("instructions", c_uint64 * 2),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", c_uint8 * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("netns", c_uint64 * 2),
        ("nr_jited", c_uint32 * 2),
        ("jited", c_uint64 * 2),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
    )


class MapInfo(ctypes.Structure):
    """The beginning of struct bpf_map_info."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", c_uint8 * 16),
        ("ifindex", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("netns", c_uint64 * 2),
        ("btf_id", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
    )


class Instruction(ctypes.Structure):
    _fields_ = (
        ("code", c_uint8),
        ("registers", c_uint8),
        ("offset", ctypes.c_int16),
        ("immediate", ctypes.c_int32),
    )


PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_set_print": (c_void_p, (PRINT,)),
    "bpf_object__open_file": (c_void_p, (c_char_p, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__token_fd": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__section_name": (c_char_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__expected_attach_type": (c_int, (c_void_p,)),
    "bpf_program__autoload": (ctypes.c_bool, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, ctypes.c_bool)),
    "bpf_program__insns": (POINTER(Instruction), (c_void_p,)),
    "bpf_program__insn_cnt": (c_size_t, (c_void_p,)),
    "bpf_program__attach": (c_void_p, (c_void_p,)),
    "bpf_program__attach_cgroup": (c_void_p, (c_void_p, c_int)),
    "bpf_program__attach_netns": (c_void_p, (c_void_p, c_int)),
    "bpf_program__attach_tcx": (c_void_p, (c_void_p, c_int, c_void_p)),
    "bpf_program__attach_xdp": (c_void_p, (c_void_p, c_int)),
    "bpf_link__destroy": (c_int, (c_void_p,)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__type": (c_int, (c_void_p,)),
    "bpf_map__max_entries": (c_uint32, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__value_size": (c_uint32, (c_void_p,)),
    "bpf_map__set_value_size": (c_int, (c_void_p, c_uint32)),
    "bpf_map__autocreate": (ctypes.c_bool, (c_void_p,)),
    "bpf_map__is_internal": (ctypes.c_bool, (c_void_p,)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
}
LIBC = ctypes.CDLL(None)
LIBC.vsnprintf.argtypes = [c_char_p, c_size_t, c_char_p, c_void_p]


class Libbpf:
    """The library, with the result types of what is used of it, and what it has to say."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path, use_errno=True)
        for name, (restype, argtypes) in SIGNATURES.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = restype, argtypes
        self.log: list[str] = []
        self._print = PRINT(self._keep)  # Referenced as long as libbpf may call it.
        self.libbpf_set_print(self._print)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def _keep(self, level: int, text: bytes, arguments: int) -> int:
        if level == 0:  # LIBBPF_WARN
            buffer = ctypes.create_string_buffer(1 << 16)
            LIBC.vsnprintf(buffer, len(buffer), text, arguments)
            self.log.append(buffer.value.decode(errors="replace").rstrip())
        return 0

    def info(self, fd: int, kind: type[ctypes.Structure]) -> Any:
        info = kind()
        size = c_uint32(ctypes.sizeof(info))
        if self.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)):
            raise OSError(ctypes.get_errno(), "BPF_OBJ_GET_INFO_BY_FD")
        return info


def _each(following: Callable[[int, int | None], int | None], obj: int) -> Iterator[int]:
    item = following(obj, None)
    while item:
        yield item
        item = following(obj, item)


def _result(number: int) -> str:
    return errno.errorcode.get(abs(number), str(number)) if number else "ok"


def _program(libbpf: Libbpf, program: int) -> dict[str, Any]:
    info = libbpf.info(libbpf.bpf_program__fd(program), ProgInfo)
    instructions = libbpf.bpf_program__insns(program)[: libbpf.bpf_program__insn_cnt(program)]
    # Calls of helpers have no source register; calls of functions have one.
    calls = (one for one in instructions if one.code == CALL and one.registers < 16)
    return {
        "type": info.type,
        "attach": libbpf.bpf_program__expected_attach_type(program),
        "tag": bytes(info.tag).hex(),
        "btf": info.btf_id != 0,
        "maps": info.nr_map_ids,
        "helpers": sorted({one.immediate for one in calls}),
    }


def _map(libbpf: Libbpf, a_map: int) -> dict[str, Any]:
    info = libbpf.info(libbpf.bpf_map__fd(a_map), MapInfo)
    btf = info.btf_id != 0 or info.btf_vmlinux_value_type_id != 0
    report = {"type": info.type, "flags": info.map_flags, "btf": btf}
    if libbpf.bpf_map__is_internal(a_map):
        size = c_size_t()
        value = libbpf.bpf_map__initial_value(a_map, ctypes.byref(size))
        report["value"] = hashlib.sha256(ctypes.string_at(value, size.value)).hexdigest()
    return report


def _cgroup() -> int:
    # This container's own, which the root of its cgroup namespace is; never one of the host's.
    if "0::/" not in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        raise RuntimeError("this container has no cgroup namespace of its own")
    return os.open("/sys/fs/cgroup", os.O_RDONLY)


def _attach(libbpf: Libbpf, program: int, section: str) -> str | None:
    """Attach a program to something of this container's, and take it off again.

    None for what attaches elsewhere and is left alone: programs that the whole kernel would run,
    programs that a map calls, and classic tc, which netlink attaches.
    """
    ctypes.set_errno(0)
    kind = section.partition("/")[0]
    if section == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, libbpf.bpf_program__fd(program))
        return "ok"
    if section in ("xdp", "xdp.frags"):
        link = libbpf.bpf_program__attach_xdp(program, LOOPBACK)
    elif kind == "tcx":
        link = libbpf.bpf_program__attach_tcx(program, LOOPBACK, None)
    elif kind == "iter":
        link = libbpf.bpf_program__attach(program)
    elif kind == "sk_lookup":
        with open("/proc/self/ns/net", "rb") as netns:
            link = libbpf.bpf_program__attach_netns(program, netns.fileno())
    elif kind in ("cgroup", "cgroup_skb", "sockops"):
        cgroup = _cgroup()
        link = libbpf.bpf_program__attach_cgroup(program, cgroup)
        os.close(cgroup)
    else:
        return None
    if not link:
        return _result(ctypes.get_errno())
    libbpf.bpf_link__destroy(link)
    return "ok"


def _complete(libbpf: Libbpf, obj: int) -> None:
    """Give maps the sizes that their applications set before they load them."""
    for one in _each(libbpf.bpf_object__next_map, obj):
        kind = libbpf.bpf_map__type(one)
        if not libbpf.bpf_map__max_entries(one) and kind not in SIZELESS:
            libbpf.bpf_map__set_max_entries(one, ENTRIES)
        if not libbpf.bpf_map__value_size(one) and kind == STACK_TRACE:
            libbpf.bpf_map__set_value_size(one, FRAMES)


def load(
    libbpf: Libbpf,
    path: str,
    *,
    attach: bool = False,
    skip: Iterable[str] = (),
    pins: str = "/sys/fs/bpf",
) -> dict[str, Any]:
    """Load the object without the programs to `skip`, its pins in `pins`; what came of it."""
    libbpf.log.clear()
    ctypes.set_errno(0)
    options = OpenOptions(ctypes.sizeof(OpenOptions), None, False, pins.encode())
    obj = libbpf.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
    if not obj:
        return {"result": _result(ctypes.get_errno()), "log": list(libbpf.log)}
    _complete(libbpf, obj)
    for name in skip:
        program = libbpf.bpf_object__find_program_by_name(obj, name.encode())
        libbpf.bpf_program__set_autoload(program, False)
    report: dict[str, Any] = {"result": _result(libbpf.bpf_object__load(obj))}
    if report["result"] == "ok":
        report["token"] = libbpf.bpf_object__token_fd(obj) >= 0
        maps = filter(libbpf.bpf_map__autocreate, _each(libbpf.bpf_object__next_map, obj))
        report["maps"] = {libbpf.bpf_map__name(one).decode(): _map(libbpf, one) for one in maps}
        report |= {"programs": {}, "attached": {}}
        programs = _each(libbpf.bpf_object__next_program, obj)
        for program in filter(libbpf.bpf_program__autoload, programs):
            name = libbpf.bpf_program__name(program).decode()
            section = libbpf.bpf_program__section_name(program).decode()
            report["programs"][name] = _program(libbpf, program)
            result = _attach(libbpf, program, section) if attach else None
            if result:
                report["attached"][name] = result
    libbpf.bpf_object__close(obj)
    return report | {"log": list(libbpf.log)}


def main() -> None:
    """Load the objects one after the other."""
    library, *objects = (item for item in sys.argv[1:] if item != "--attach")
    libbpf = Libbpf(library)
    attach = "--attach" in sys.argv
    reports = {Path(path).name: load(libbpf, path, attach=attach) for path in objects}
    sys.stdout.write(json.dumps(reports))


if __name__ == "__main__":
    main()
