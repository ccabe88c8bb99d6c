"""The table of system call numbers, against libseccomp's and the compiler's headers."""

import ctypes
import os

import pytest

from oci_bpf_hook.kernel.arch import ARCHES, Arch, native

# libseccomp.so.2 comes with the runtimes.
_seccomp = ctypes.CDLL("libseccomp.so.2")
_seccomp.seccomp_syscall_resolve_name_rewrite.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
# What libseccomp calls x32, whose AUDIT_ARCH_* is that of x86_64.
_X32 = 0x4000003E
# Of later releases than Debian 12's.
_LATER = {0xC0000102}


def number(arch: Arch, name: str) -> int:
    token = _X32 if (arch.audit, arch.bits) == (0xC000003E, 32) else arch.audit
    return int(_seccomp.seccomp_syscall_resolve_name_rewrite(token, name.encode()))


@pytest.mark.parametrize(
    "arch",
    [arch for arch in ARCHES if arch.audit not in _LATER],
    ids=lambda arch: f"{arch.audit:#x}-{arch.bits}",
)
def test_numbers(arch: Arch) -> None:
    for name in ("bpf", "seccomp", "perf_event_open"):
        found = number(arch, name)
        # The direction of rewriting is x32's bit alone.
        assert found & ~0x40000000 == getattr(arch, name) & ~0x40000000, name


def test_an_architecture_is_there_once() -> None:
    assert len({(arch.audit, arch.bits) for arch in ARCHES}) == len(ARCHES)


def test_native() -> None:
    for machine, bits, audit in (
        ("x86_64", 64, 0xC000003E),
        ("x86_64", 32, 0x40000003),
        ("i686", 32, 0x40000003),
        ("aarch64", 64, 0xC00000B7),
        ("aarch64", 32, 0x40000028),
        ("s390x", 64, 0x80000016),
    ):
        found = native(machine, bits)
        assert found is not None
        assert (found.audit, found.bits) == (audit, bits)
    # Never a guess.
    assert native("alpha", 64) is None
    assert native("mips64", 64) is None


def test_ours_is_the_one_that_the_kernel_names() -> None:
    found = native(os.uname().machine, ctypes.sizeof(ctypes.c_void_p) * 8)
    assert found is not None
    assert found.audit == _seccomp_native()


def _seccomp_native() -> int:
    _seccomp.seccomp_arch_native.restype = ctypes.c_uint32
    return int(_seccomp.seccomp_arch_native())
