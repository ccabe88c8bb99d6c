"""What is in an object: its programs and the helpers they call."""

import pytest

from oci_bpf_hook.advise import objects
from oci_bpf_hook.advise.elf import ElfError
from tests.support.bpf import compile_text, compiled

HEADERS = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"


@pytest.mark.parametrize("by", ["clang", "clang-be"])
def test_programs(by: str) -> None:
    found = objects.read(compiled("choices", by=by), "c.o")
    assert [(one.name, one.section, one.autoload) for one in found.programs] == [
        ("loaded", "socket", True),
        ("left_out", "xdp", False),
        ("choice_ssthresh", "struct_ops/ssthresh", True),
    ]
    assert (found.source, found.btf, found.explained) == ("c.o", True, True)


@pytest.mark.parametrize("by", ["clang", "clang-be"])
def test_helpers(by: str) -> None:
    """Its own and, as it calls functions, theirs."""
    (program,) = objects.read(compiled("functions", by=by), "").programs
    assert program.helpers == {113, 181}
    (program,) = objects.read(compiled("prints", by=by), "").programs
    assert program.helpers == {6}


def test_externs() -> None:
    found = objects.read(compiled("kconfig"), "")
    assert found.externs == {"LINUX_KERNEL_VERSION", "LINUX_HAS_BPF_COOKIE", "CONFIG_HZ"}


def test_jump_tables() -> None:
    text = f'{HEADERS}int table SEC(".jumptables") = 1;'
    assert objects.read(compile_text(text), "").jump_tables
    assert not objects.read(compiled("pinned"), "").jump_tables


@pytest.mark.parametrize("name", ["pinned", "dummy_ops"])
def test_without_types_where_they_are_needed(name: str) -> None:
    with pytest.raises(ElfError, match="no BTF to read it with; compile with -g"):
        objects.read(compiled(name, "-g0"), "")


def test_without_types_where_they_are_not_needed() -> None:
    found = objects.read(compiled("variables", "-g0"), "")
    assert (found.btf, found.explained) == (False, False)
    assert ".bss" in {one.name for one in found.maps}


def test_types_that_make_no_sense() -> None:
    data = compiled("pinned").replace(b"\x9f\xeb\x01\x00", b"\x9f\xeb\x02\x00")
    with pytest.raises(ElfError, match="its BTF makes no sense"):
        objects.read(data, "")


def test_functions_that_overlap() -> None:
    """One or two names for the same are fine, thousands would be thousands of copies."""

    def named(count: int) -> str:
        more = "".join(
            f'extern int again{number}(void *ctx) __attribute__((alias("program")));'
            for number in range(count)
        )
        return f'{HEADERS}SEC("socket") int program(void *ctx) {{ return 0; }} {more}'

    assert len(objects.read(compile_text(named(1)), "").programs) == 2
    with pytest.raises(ElfError, match="functions overlap"):
        objects.read(compile_text(named(100)), "")
