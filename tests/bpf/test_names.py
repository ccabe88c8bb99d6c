"""The enums' names and bits, and what make_enum refuses to take for them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.enumerators import NamesError, make_enum
from oci_bpf_hook.bpf.names import (
    ALL_BITS,
    CMDS,
    KINDS,
    MAPS,
    PROGS,
    Enum,
    Kind,
)
from oci_bpf_hook.kernel.enums import table

GOOD = [
    ("BPF_MAP_CREATE", 0),
    ("BPF_PROG_TEST_RUN", 1),
    ("BPF_PROG_RUN", 1),
    ("BPF_BTF_LOAD", 2),
    ("__MAX_BPF_CMD", 3),
]


def make(*enumerators: tuple[str, int], guarded: bool = True) -> Enum:
    return make_enum(CMDS, enumerators, guarded=guarded)


@pytest.fixture(scope="module")
def latest() -> dict[str, Enum]:
    return table().enums(KINDS)


def test_the_options_are_the_kernels_own() -> None:
    # kernel/bpf/inode.c, bpf_fs_parameters.
    assert [(kind.option, kind.enum) for kind in KINDS] == [
        ("delegate_cmds", "bpf_cmd"),
        ("delegate_maps", "bpf_map_type"),
        ("delegate_progs", "bpf_prog_type"),
        ("delegate_attachs", "bpf_attach_type"),
    ]


def test_an_enum_has_names_values_and_aliases() -> None:
    enum = make(*GOOD)
    assert enum.values == {"map_create": 0, "prog_test_run": 1, "prog_run": 1, "btf_load": 2}
    assert list(enum.values) == ["map_create", "prog_test_run", "prog_run", "btf_load"]
    # bpffs shows the first of the aliases.
    assert enum.names == {0: "map_create", 1: "prog_test_run", 2: "btf_load"}
    assert enum.known == 0b111


def test_a_flag_after_the_guard_is_no_name() -> None:
    """As BPF_COMMON_ATTRS since Linux 7.0."""
    enumerators = [("BPF_A", 0), ("__MAX_BPF_CMD", 1), ("BPF_COMMON_ATTRS", 1 << 16)]
    assert make_enum(CMDS, enumerators, guarded=True).values == {"a": 0}


def test_the_guard_may_be_missing_only_where_that_is_said() -> None:
    assert make(*GOOD[:-1], guarded=False).values == make(*GOOD).values
    with pytest.raises(NamesError, match="too early"):
        make(*GOOD[:-1], guarded=True)


def test_bits_beyond_the_mask_are_not_known() -> None:
    enum = make(*((f"BPF_N{value}", value) for value in range(70)), guarded=False)
    assert enum.known == ALL_BITS == 0xFFFF_FFFF_FFFF_FFFF
    assert enum.find("n69") == 69


@pytest.mark.parametrize(
    "enumerators",
    [
        pytest.param([], id="empty"),
        pytest.param([("__MAX_BPF_CMD", 0)], id="only the guard"),
        pytest.param([("BPF_A", 1), ("BPF_B", 2)], id="not from 0"),
        pytest.param([("BPF_A", 0), ("BPF_B", 2)], id="a gap"),
        pytest.param([("BPF_A", 0), ("BPF_B", -1)], id="negative"),
        pytest.param([("BPF_A", 0), ("BPF_B", 1), ("BPF_A", 2)], id="a name twice"),
        pytest.param([("BPF_A", 0), ("BPF_a", 1)], id="a name twice, in another case"),
        pytest.param([("BPF_A", 0), ("XDP_B", 1)], id="another prefix"),
        pytest.param([("bpf_a", 0)], id="a lower-case prefix"),
        pytest.param([("BPF_", 0)], id="nothing behind the prefix"),
        pytest.param([("BPF_A", 0), ("__MAX_BPF_CMD", 2)], id="a guard too high"),
        pytest.param([("BPF_A", 0), ("BPF_B", 1), ("__MAX_BPF_CMD", 1)], id="a guard too low"),
        pytest.param([("BPF_A", 0), ("__MAX_BPF_CMD", 1), ("BPF_B", 1)], id="after the guard"),
        pytest.param(
            [("BPF_A", 0), ("__MAX_BPF_CMD", 1), ("BPF_B", 96)], id="after the guard, and no flag"
        ),
        pytest.param([("BPF_A", 0), ("__MAX_BPF_CMD", 1), ("__MAX_BPF_CMD", 1)], id="two guards"),
    ],
)
@pytest.mark.parametrize("guarded", [False, True])
def test_what_is_no_such_enum_is_refused(
    enumerators: list[tuple[str, int]], *, guarded: bool
) -> None:
    with pytest.raises(NamesError, match="enum bpf_cmd"):
        make(*enumerators, guarded=guarded)


def test_another_enum_is_not_taken_for_it() -> None:
    with pytest.raises(NamesError, match="BPF_PROG_TYPE_"):
        make_enum(PROGS, [("BPF_MAP_TYPE_UNSPEC", 0), ("BPF_MAP_TYPE_HASH", 1)], guarded=False)


@st.composite
def enumerations(draw: st.DrawFn) -> list[tuple[str, int]]:
    """An enum as C could have it: values from 0 on, aliases anywhere behind what they repeat."""
    names = draw(
        st.lists(st.from_regex(r"[A-Z0-9_]{1,12}", fullmatch=True), min_size=1, unique=True)
    )
    found: list[tuple[str, int]] = []
    following = 0
    for name in names:
        alias = following and draw(st.booleans())
        value = draw(st.integers(0, following - 1)) if alias else following
        following = max(following, value + 1)
        found.append((f"BPF_{name}", value))
    return [*found, ("__MAX_BPF_CMD", following)]


@settings(deadline=None)
@given(enumerations())
def test_every_well_formed_enum_is_taken_whole(enumerators: list[tuple[str, int]]) -> None:
    enum = make(*enumerators)
    given = {name[4:].lower(): value for name, value in enumerators[:-1]}
    assert enum.values == given
    assert set(enum.names) == set(given.values())
    for value, name in enum.names.items():
        assert name == next(other for other, same in given.items() if same == value)


@settings(deadline=None)
@given(enumerations(), st.data())
def test_what_lost_an_enumerator_is_refused(
    enumerators: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Unless it was an alias, or has one: then all the others still mean what they did."""
    lost = data.draw(st.integers(0, len(enumerators) - 1))
    rest = enumerators[:lost] + enumerators[lost + 1 :]
    value = enumerators[lost][1]
    if lost < len(enumerators) - 1 and any(other == value for _, other in rest[:-1]):
        return
    with pytest.raises(NamesError):
        make(*rest)


def spellings(kind: Kind, name: str) -> list[str]:
    full = (kind.prefix + name).lower()
    return [name, full, full.replace("_", "")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.enum)
def test_every_spelling_of_every_name_is_found(kind: Kind, latest: dict[str, Enum]) -> None:
    enum = latest[kind.option]
    for name, value in enum.values.items():
        assert [enum.find(spelling) for spelling in spellings(kind, name)] == [value] * 3


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.enum)
def test_no_spelling_means_two_things(kind: Kind, latest: dict[str, Enum]) -> None:
    seen: dict[str, str] = {}
    for name in latest[kind.option].values:
        for spelling in set(spellings(kind, name)):
            assert seen.setdefault(spelling, name) == name
    # What the grammar has for other things is no name in any of them.
    assert not any(word == "any" or re.match("0x|[0-9]+$", word) for word in seen)


@pytest.mark.parametrize(
    "item",
    [
        "",
        "bpf_",
        "bpf",
        "has",
        "hash_",
        "_hash",
        "map_type_hash",
        "bpf_hash",
        "bpfhash",
        "type_hash",
        "bpf_map_type_",
        "bpfmaptype",
        "maptypehash",
        "bpf_maptypehash",
        "bpfmap_typehash",
    ],
)
def test_half_a_name_is_none(item: str, latest: dict[str, Enum]) -> None:
    assert latest[MAPS.option].find(item) is None
