"""Maps: by their definitions, and for variables."""

import pytest

from oci_bpf_hook.advise import elf, maps, objects
from oci_bpf_hook.advise.maps import DEFINED, LEGACY, VARIABLES, Map
from tests.support.bpf import compile_text, compiled

HEADERS = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"


def found(data: bytes) -> dict[str, Map]:
    return {one.name: one for one in objects.read(data, "").maps}


@pytest.mark.parametrize("by", ["clang", "clang-be"])
def test_definitions(by: str) -> None:
    inner = Map(name="outer's inner map", kind=DEFINED, type=9)
    assert found(compiled("pinned", by=by)) == {
        "filled": Map(name="filled", kind=DEFINED, type=9, btf=True),
        "outer": Map(name="outer", kind=DEFINED, type=13, inner=inner),
        "obh_pinned": Map(name="obh_pinned", kind=DEFINED, type=6, btf=True, pinned=True),
    }


def test_functions_are_no_inner_maps() -> None:
    assert found(compiled("tail_call"))["targets"].inner is None


def test_flags() -> None:
    defines = ("-DTYPE=1", "-DKEY=int", "-DVALUE=int", "-DENTRIES=1", "-DFLAGS=64")
    assert found(compiled("map", *defines))["map"].flags == 64


@pytest.mark.parametrize("by", ["clang", "clang-be", "gcc"])
def test_variables(by: str) -> None:
    variables = {
        one.name for one in found(compiled("variables", by=by)).values() if one.kind == VARIABLES
    }
    sections = {".data", ".data.more", ".rodata", ".rodata.more", ".bss", ".bss.more"}
    if by == "gcc":  # It has volatile constants among the variables.
        sections.remove(".rodata")
    assert variables - {".rodata.str1.1"} == sections


def test_variables_that_no_type_describes() -> None:
    assert not found(compiled("variables"))[".rodata.str1.1"].btf
    assert found(compiled("variables"))[".bss"].btf


def test_the_kernels_configuration() -> None:
    assert found(compiled("kconfig"))[".kconfig"].kind == VARIABLES


@pytest.mark.parametrize("by", ["clang", "clang-be"])
def test_legacy(by: str) -> None:
    text = (
        f"{HEADERS}struct {{ unsigned type, key, value, entries, flags; }}"
        ' counts SEC("maps") = { BPF_MAP_TYPE_HASH, 4, 8, 16, 0 };'
    )
    assert found(compile_text(text, by=by)) == {"counts": Map(name="counts", kind=LEGACY, type=1)}


def test_a_map_in_itself() -> None:
    """A definition whose inner map is of its own type ends all the same."""
    text = (
        f"{HEADERS}struct outer {{ __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __type(key, int);"
        ' __array(values, struct outer); } map SEC(".maps");'
    )
    (one,) = found(compile_text(text)).values()
    assert one.inner
    assert (one.inner.type, one.inner.inner) == (12, None)


def test_without_types() -> None:
    assert list(maps.read(elf.parse(compiled("pinned")), None)) == []
