"""The corpus: compiled objects from Debian's packages, and of the small sources here.

What the packages' programs embed is carved out by our own reader; the sources are compiled once, or
once for each row of a table.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from oci_bpf_hook.advise import embedded, sections
from tests.support.consumer import CLANG, SOURCES
from tests.support.engines import require, run

HERE: Final = Path(__file__).parent
PACKAGES: Final = ("libbpf-tools", "xdp-tools", "libxdp1", "libxdp-dev")

# Rows of libbpf's table that need the name of something: of this kernel where it has one.
_NAMED: Final = {
    "tp_btf": "sched_switch",
    "tp_btf.s": "sys_enter",
    "fentry": "do_nanosleep",
    "fentry.s": "do_sys_openat2",
    "fexit": "do_nanosleep",
    "fexit.s": "do_sys_openat2",
    "fmod_ret": "security_file_open",
    "fmod_ret.s": "security_file_open",
    "fsession": "do_nanosleep",
    "fsession.s": "do_sys_openat2",
    "lsm": "file_open",
    "lsm.s": "file_open",
    "lsm_cgroup": "socket_post_create",
    "iter": "task",
    "iter.s": "task",
    "freplace": "function",
}
# These may return 0 alone; every other type takes 1.
_ZERO: Final = ("fentry", "fexit", "lsm", "fsession")

_U32, _U64 = "-DKEY=__u32", "-DVALUE=__u64"
_NO_PREALLOC: Final = "-DFLAGS=BPF_F_NO_PREALLOC"
_STORAGE: Final = ("-DKEY=int", _U64, "-DENTRIES=0", _NO_PREALLOC)
# The kernel's number of each map type, and what it takes; 16 entries unless it says otherwise.
_MAPS: Final[dict[str, tuple[int, Sequence[str]]]] = {
    "hash": (1, (_U32, _U64)),
    "array": (2, (_U32, _U64)),
    "prog_array": (3, (_U32, "-DVALUE=__u32")),
    "perf_event_array": (4, (_U32, "-DVALUE=__u32")),
    "percpu_hash": (5, (_U32, _U64)),
    "percpu_array": (6, (_U32, _U64)),
    "stack_trace": (7, (_U32, "-DVALUE=struct frames")),
    "cgroup_array": (8, (_U32, "-DVALUE=__u32")),
    "lru_hash": (9, (_U32, _U64)),
    "lru_percpu_hash": (10, (_U32, _U64)),
    "lpm_trie": (11, ("-DKEY=struct prefix", _U64, _NO_PREALLOC)),
    "array_of_hashes": (12, (_U32, "-DINNER=BPF_MAP_TYPE_HASH", "-DINNER_KEY=__u32")),
    "hash_of_arrays": (13, (_U32, "-DINNER=BPF_MAP_TYPE_ARRAY", "-DINNER_KEY=__u32")),
    "hash_of_ringbufs": (13, (_U32, "-DINNER=BPF_MAP_TYPE_RINGBUF")),
    "devmap": (14, (_U32, "-DVALUE=__u32")),
    "sockmap": (15, (_U32, _U64)),
    "cpumap": (16, (_U32, "-DVALUE=__u32", "-DENTRIES=2")),
    "xskmap": (17, (_U32, "-DVALUE=__u32")),
    "sockhash": (18, (_U32, _U64)),
    "cgroup_storage": (19, ("-DKEY=__u64", _U64, "-DENTRIES=0")),
    "reuseport_sockarray": (20, (_U32, _U64)),
    "percpu_cgroup_storage": (21, ("-DKEY=__u64", _U64, "-DENTRIES=0")),
    "queue": (22, (_U64,)),
    "stack": (23, (_U64,)),
    "sk_storage": (24, _STORAGE),
    "devmap_hash": (25, (_U32, "-DVALUE=__u32")),
    "ringbuf": (27, ("-DENTRIES=4096",)),
    "inode_storage": (28, _STORAGE),
    "task_storage": (29, _STORAGE),
    "bloom_filter": (30, (_U64,)),
    "user_ringbuf": (31, ("-DENTRIES=4096",)),
    "cgrp_storage": (32, _STORAGE),
    "arena": (33, ("-DENTRIES=4", "-DFLAGS=BPF_F_MMAPABLE")),
    "insn_array": (34, (_U32, "-DVALUE=struct prefix")),
}


def build(directory: Path) -> list[Path]:
    """Make every object in `directory`, which anybody can read; the objects, by name."""
    _carve(directory)
    jobs = [*_sources(), *_sections(), *_maps()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda job: _compile(directory, *job), jobs):
            pass
    return sorted(directory.glob("*.o"))


def packaged() -> Iterator[tuple[str, bytes]]:
    """The objects of the packages that are installed, each once."""
    listed = require(run(["dpkg-query", "--listfiles", *PACKAGES])).stdout.splitlines()
    seen: set[bytes] = set()
    for path in sorted({Path(line) for line in listed}):
        if path.is_symlink() or not path.is_file():
            continue
        for number, (_, data) in enumerate(embedded.find(path.read_bytes())):
            if data not in seen:
                seen.add(data)
                yield f"{path.name.removesuffix('.o')}{f'-{number}' if number else ''}", data


def _carve(directory: Path) -> None:
    for name, data in packaged():
        (directory / f"debian-{name}.o").write_bytes(data)


def _sources() -> Iterator[tuple[str, Path, Sequence[str]]]:
    for source in sorted(SOURCES.glob("*.bpf.c")):
        yield f"profile-{source.name.removesuffix('.bpf.c')}", source, ()
    for source in sorted(HERE.glob("*.bpf.c")):
        if source.name not in ("program.bpf.c", "map.bpf.c"):
            yield source.name.removesuffix(".bpf.c"), source, ()


def _sections() -> Iterator[tuple[str, Path, Sequence[str]]]:
    for row in sections.rows(sections.LIBBPF):
        if row.prog == "struct_ops":
            continue  # These take a map.
        bare = row.pattern.rstrip("+")
        section = f"{bare}/{_NAMED[bare]}" if bare in _NAMED else bare
        result = "0" if bare.startswith(_ZERO) else "1"
        defines = (f'-DSECTION="{section}"', f"-DRESULT={result}")
        yield f"section-{bare.replace('/', '-')}", HERE / "program.bpf.c", defines


def _maps() -> Iterator[tuple[str, Path, Sequence[str]]]:
    for name, (number, defines) in _MAPS.items():
        entries = () if any("ENTRIES" in one for one in defines) else ("-DENTRIES=16",)
        yield f"map-{name}", HERE / "map.bpf.c", (f"-DTYPE={number}", *defines, *entries)


def _compile(directory: Path, name: str, source: Path, defines: Sequence[str]) -> None:
    target = str(directory / f"{name}.o")
    require(run([*CLANG, *defines, "-o", target, "-c", str(source)]))
