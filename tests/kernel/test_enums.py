"""enums.py: which names the running kernel has, from each of the places that say so."""

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from oci_bpf_hook.bpf.btf import BtfError
from oci_bpf_hook.bpf.names import CMDS, KINDS, MAPS, Enum, Kind
from oci_bpf_hook.errors import USAGE, HookError
from oci_bpf_hook.kernel import enums as kernel
from tests.bpf.test_btf import Btf

LINUX_BPF_H = "/usr/include/linux/bpf.h"
NO_BTF = "/sys/kernel/btf/no-such-file"
BY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.enum)


def same(one: dict[str, Enum], other: dict[str, Enum]) -> bool:
    def values(enums: dict[str, Enum]) -> list[tuple[str, list[tuple[str, int]]]]:
        return [(option, list(enum.values.items())) for option, enum in enums.items()]

    return values(one) == values(other)


@pytest.fixture(scope="module")
def header() -> str:
    if not os.path.exists(LINUX_BPF_H):
        pytest.skip(f"there is no {LINUX_BPF_H} (Debian's linux-libc-dev)")
    return LINUX_BPF_H


# ---- the three sources agree


@BY_KIND
def test_btf_header_and_table_agree_on_every_name_they_share(kind: Kind, header: str) -> None:
    sources = [
        kernel.from_btf(KINDS)[kind.option],
        kernel.from_header(KINDS, header)[kind.option],
        kernel.table().enums(KINDS)[kind.option],
    ]
    for one in sources:
        for other in sources:
            shared = one.values.keys() & other.values.keys()
            assert len(shared) >= 30
            for name in shared:
                assert one.values[name] == other.values[name]
            # No bit means two things: where the names differ, one has an alias the other lacks.
            for bit in one.names.keys() & other.names.keys():
                assert {name for name in shared if one.values[name] == bit}


@BY_KIND
def test_the_table_knows_every_name_of_this_kernel(kind: Kind) -> None:
    here = kernel.from_btf((kind,))[kind.option].values
    assert here.items() <= kernel.table().enums((kind,))[kind.option].values.items(), (
        f"contrib/update-bpf-enums with this kernel's header: {os.uname().release}"
    )


@BY_KIND
def test_the_table_shows_what_this_kernel_shows(kind: Kind) -> None:
    here = kernel.from_btf((kind,))[kind.option].names
    assert here.items() <= kernel.table().enums((kind,))[kind.option].names.items()


# ---- which one is asked


def test_this_kernels_btf_comes_first(header: str) -> None:
    assert same(kernel.enums(KINDS, header=header), kernel.from_btf(KINDS))
    # So a header that isn't there does no harm while it isn't needed.
    assert same(kernel.enums(KINDS, header="/no/such/file"), kernel.from_btf(KINDS))


def test_only_the_kinds_that_are_asked_for_are_read() -> None:
    assert list(kernel.enums((MAPS,))) == [MAPS.option]
    assert kernel.enums((), header="/no/such/file", vmlinux=NO_BTF) == {}


def test_without_btf_the_header_is_read(header: str) -> None:
    found = kernel.enums(KINDS, header=header, vmlinux=NO_BTF)
    assert same(found, kernel.from_header(KINDS, header))


def test_without_btf_and_header_it_is_the_table() -> None:
    assert same(kernel.enums(KINDS, vmlinux=NO_BTF), kernel.table().enums(KINDS))


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(100), bytes(1 << 16)])
def test_what_is_no_btf_is_like_no_btf(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vmlinux").write_bytes(content)
    for path in (tmp_path / "vmlinux", tmp_path):
        assert same(kernel.enums(KINDS, vmlinux=str(path)), kernel.table().enums(KINDS))


def test_btf_without_the_enums_is_like_no_btf(tmp_path: Path, header: str) -> None:
    # One is not enough: a module's BTF has only the types that vmlinux has not.
    path = tmp_path / "module"
    path.write_bytes(Btf().real(CMDS).bytes())
    with pytest.raises(BtfError):
        kernel.from_btf(KINDS, str(path))
    found = kernel.enums(KINDS, header=header, vmlinux=str(path))
    assert same(found, kernel.from_header(KINDS, header))
    assert kernel.enums((CMDS,), vmlinux=str(path)).keys() == {CMDS.option}


# ---- a header that is no help


def refused(path: object) -> str:
    with pytest.raises(HookError) as caught:
        kernel.enums(KINDS, header=str(path), vmlinux=NO_BTF)
    assert caught.value.code == USAGE
    assert str(caught.value).startswith(f"--header {path}: ")
    return str(caught.value)


def test_a_header_that_cant_be_read_is_an_error(tmp_path: Path) -> None:
    assert refused(tmp_path / "bpf.h").endswith("No such file or directory")
    assert refused(tmp_path).endswith("Is a directory")
    assert refused("/etc/passwd/bpf.h").endswith("Not a directory")


def test_a_header_that_isnt_the_one_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bpf.h"
    path.write_text("")
    assert "enum bpf_cmd is defined 0 times" in refused(path)
    path.write_bytes(Path("/proc/self/exe").read_bytes())
    assert "enum bpf_cmd is defined 0 times" in refused(path)
    path.write_text("enum bpf_cmd {\n#ifdef X\nBPF_A\n#endif\n};")
    assert "conditional #ifdef" in refused(path)


def test_a_header_that_never_ends_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bpf.h")
    assert refused(tmp_path / "bpf.h").endswith("not a regular file")
    assert refused("/dev/zero").endswith("not a regular file")
    with (tmp_path / "huge.h").open("wb") as file:
        file.truncate((1 << 26) + 1)
    assert refused(tmp_path / "huge.h").endswith("too large")


def test_a_header_behind_a_symbolic_link_is_read(tmp_path: Path, header: str) -> None:
    (tmp_path / "bpf.h").symlink_to(header)
    found = kernel.from_header(KINDS, str(tmp_path / "bpf.h"))
    assert same(found, kernel.from_header(KINDS, header))


def test_a_headers_name_makes_no_line_of_a_log() -> None:
    for name, shown in (("/x\ny", r"'/x\ny'"), ("/x\udcff", r"'/x\udcff'")):
        with pytest.raises(HookError) as caught:
            kernel.from_header((CMDS,), name)
        assert str(caught.value) == f"--header {shown}: No such file or directory"


def test_a_header_in_latin_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bpf.h"
    path.write_bytes(b"/* Copyright \xa9 */ enum bpf_cmd { BPF_A };")
    assert dict(kernel.from_header((CMDS,), str(path))[CMDS.option].values) == {"a": 0}


# ---- BTF that can't be mapped


def test_a_copy_is_as_good(tmp_path: Path) -> None:
    copy = tmp_path / "vmlinux"
    copy.write_bytes(Path(kernel.VMLINUX).read_bytes())
    assert same(kernel.from_btf(KINDS, str(copy)), kernel.from_btf(KINDS))


@contextmanager
def piped(data: bytes) -> Iterator[str]:
    """A path that `data` can be read from, and not mapped."""
    ours, theirs = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), open(theirs, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with pytest.raises((OSError, ValueError)):
            mmap.mmap(ours, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        yield f"/dev/fd/{ours}"
    finally:
        os.close(ours)
        thread.join()


def test_a_kernel_whose_btf_cant_be_mapped_is_read() -> None:
    # Before 6.16, sysfs has no mmap for it.
    with piped(Path(kernel.VMLINUX).read_bytes()) as path:
        assert same(kernel.from_btf(KINDS, path), kernel.from_btf(KINDS))


def test_what_cant_be_mapped_and_is_no_btf_is_an_error() -> None:
    with piped(b"nothing") as path, pytest.raises(BtfError):
        kernel.from_btf(KINDS, path)


def test_no_fd_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    kernel.from_btf(KINDS)
    kernel.table()
    with pytest.raises(OSError, match="No such file"):
        kernel.from_btf(KINDS, NO_BTF)
    with pytest.raises(BtfError):
        kernel.from_btf(KINDS, "/proc/self/exe")
    assert len(os.listdir("/proc/self/fd")) <= before
