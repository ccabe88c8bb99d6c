"""masks.py: from words to the kernel's 64 bits, and back from what a real bpffs shows."""

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oci_bpf_hook.bpf.enumerators import make_enum
from oci_bpf_hook.bpf.names import (
    ALL_BITS,
    ATTACHS,
    CMDS,
    KINDS,
    MAPS,
    PROGS,
    Enum,
    Kind,
)
from oci_bpf_hook.bpf.table import Table
from oci_bpf_hook.delegation.annotations import MODE, PATH, PREFIX, Request, parse
from oci_bpf_hook.delegation.masks import Grant, differences, parse_shown, resolve, show
from oci_bpf_hook.errors import LISTED, UNKNOWN_NAME, HookError
from oci_bpf_hook.kernel import enums as kernel

HERE = kernel.enums(KINDS)
TABLE = kernel.table()
LATEST = TABLE.enums(KINDS)
# As of Linux 6.2 or so: a kernel that lacks names of each kind.
OLD = {
    kind.option: Enum(
        kind, {name: value for name, value in LATEST[kind.option].values.items() if value < end}
    )
    for kind, end in ((CMDS, 36), (MAPS, 33), (PROGS, 32), (ATTACHS, 46))
}
BY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.enum)


def no_table() -> Table:
    raise AssertionError("nothing here needs the table")


def read(drop: str = "fail", **lists: str) -> Request:
    annotations = {PREFIX + key: text for key, text in lists.items()}
    found = parse(annotations | {PREFIX + "on_unknown": drop}, lambda: None)
    assert found is not None
    return found


def resolved(
    enums: Mapping[str, Enum] = HERE,
    table: Callable[[], Table] = no_table,
    drop: str = "fail",
    **lists: str,
) -> tuple[dict[str, int], tuple[str, ...]]:
    grant, dropped = resolve(read(drop, **lists), enums, table, {})
    return grant.masks, dropped


def mask(kind: Kind, text: str, enums: Mapping[str, Enum] = HERE) -> int:
    granted, _ = resolve(read("fail", **{kind.option: text}), enums, no_table, {})
    return granted.masks.get(kind.option, 0)


def problems(enums: Mapping[str, Enum], drop: str = "fail", **lists: str) -> tuple[str, ...]:
    with pytest.raises(HookError) as caught:
        resolve(read(drop, **lists), enums, lambda: TABLE, {})
    assert caught.value.code == UNKNOWN_NAME
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    return caught.value.sentences


def problem(enums: Mapping[str, Enum], drop: str = "fail", **lists: str) -> str:
    (only,) = problems(enums, drop, **lists)
    return only


def test_only_the_profiles_that_are_printed_are_looked_for() -> None:
    names = [f"own-socket{number}" for number in range(LISTED + 9)]
    request = parse({f"{PREFIX}profile": ",".join(names)}, lambda: None)
    assert request is not None
    with pytest.raises(HookError) as caught:
        resolve(request, HERE, no_table, {"own-sockets": {}})
    hinted = ['did you mean "own-sockets"?' in text for text in caught.value.sentences]
    assert hinted == [True] * LISTED + [False] * 9


def test_systemds_names_are_the_first_of_those_that_are_one_to_it() -> None:
    enum = Enum(CMDS, {"a_b": 1, "ab": 2, "c": 3})
    assert enum.find("bpfab") == 1
    assert enum.find("bpfc") == 3
    assert enum.find("bpfd") is None


# ---- names to bits


def systemd_name(kind: Kind, name: str) -> str:
    """As systemd writes it in BPFDelegate*=: BPF_PROG_TYPE_XDP is BPFProgTypeXdp."""
    first, *words = (kind.prefix + name.upper()).split("_")
    return first + "".join(word.capitalize() for word in words)


def test_systemds_names() -> None:
    # src/core/bpf-*.c of systemd 258, and its manual page.
    assert systemd_name(PROGS, "xdp") == "BPFProgTypeXdp"
    assert systemd_name(CMDS, "prog_load") == "BPFProgLoad"
    assert systemd_name(MAPS, "lru_percpu_hash") == "BPFMapTypeLruPercpuHash"
    assert systemd_name(ATTACHS, "cgroup_inet4_bind") == "BPFCgroupInet4Bind"


@BY_KIND
@pytest.mark.parametrize("enums", [HERE, LATEST, OLD], ids=["here", "latest", "old"])
def test_every_spelling_of_every_name_is_the_same_bit(kind: Kind, enums: dict[str, Enum]) -> None:
    for name, value in enums[kind.option].values.items():
        full = kind.prefix + name.upper()
        spellings = [name, name.upper(), name.title(), full, full.lower(), full.title()]
        spellings += [systemd_name(kind, name), systemd_name(kind, name).lower()]
        spellings += [f"{1 << value:#x}", f"0X{1 << value:032X}"]
        assert {mask(kind, text, enums) for text in spellings} == {1 << value}
        # And taken away from everything in whatever words, just that bit is gone.
        taken = {mask(kind, f"any,!{text}", enums) for text in spellings}
        assert taken == {ALL_BITS & ~(1 << value)}


def test_a_few_bits_by_hand() -> None:
    assert mask(CMDS, "map_create") == 1
    assert mask(CMDS, "prog_load") == 1 << 5
    assert mask(PROGS, "xdp") == 1 << 6
    assert mask(PROGS, "syscall") == 1 << 31
    assert mask(PROGS, "netfilter") == 1 << 32
    assert mask(ATTACHS, "cgroup_inet_ingress") == 1
    assert mask(CMDS, "prog_run") == mask(CMDS, "prog_test_run") == 1 << 10


@BY_KIND
def test_any_is_all_64_bits_and_takes_no_names(kind: Kind) -> None:
    request = read(**{kind.option: "any"})
    grant, dropped = resolve(request, {}, no_table, {})
    assert (grant.masks, dropped) == ({kind.option: ALL_BITS}, ())


def test_the_rest_of_the_request_is_granted_as_it_is() -> None:
    request = parse(
        {PREFIX + "delegate_cmds": "any", PREFIX + "path": "/b", PREFIX + "mode": "700"},
        lambda: None,
    )
    assert request is not None
    grant, _ = resolve(request, {}, no_table, {})
    assert grant == Grant(masks={"delegate_cmds": ALL_BITS}, path="/b", mode=0o700)


def test_what_comes_to_nothing_is_not_granted() -> None:
    assert resolved(delegate_cmds="prog_load,!prog_load", delegate_maps="hash") == (
        {"delegate_maps": 2},
        (),
    )
    assert resolved(delegate_cmds="0x0") == ({}, ())


BITS = st.integers(0, ALL_BITS)
ITEMS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(sorted(HERE[CMDS.option].values)) | BITS.map(hex))
    | st.just((False, "any")),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(ITEMS, st.randoms(use_true_random=False))
def test_the_order_of_items_means_nothing(
    items: list[tuple[bool, str]], shuffle: random.Random
) -> None:
    request = Request(
        lists={CMDS.option: tuple(("!" if taken else "") + item for taken, item in items)},
        path=PATH,
        mode=MODE,
        drop_unknown=False,
        shim=False,
        profiles=(),
        record="",
    )
    shuffled = list(request.lists[CMDS.option])
    shuffle.shuffle(shuffled)
    other = Request(
        lists={CMDS.option: tuple(shuffled)},
        path=PATH,
        mode=MODE,
        drop_unknown=False,
        shim=False,
        profiles=(),
        record="",
    )
    first = resolve(request, HERE, no_table, {})
    assert first == resolve(other, HERE, no_table, {})

    def of(item: str) -> int:
        if item == "any":
            return ALL_BITS
        value = HERE[CMDS.option].values.get(item)
        return int(item, 16) if value is None else 1 << value

    given = taken = 0
    for minus, item in items:
        if minus:
            taken |= of(item)
        else:
            given |= of(item)
    assert first[0].masks.get(CMDS.option, 0) == given & ~taken


# ---- names that this kernel lacks


@BY_KIND
def test_a_newer_kernels_name_says_since_when(kind: Kind) -> None:
    lacking = [name for name in LATEST[kind.option].values if name not in OLD[kind.option].values]
    assert lacking
    for name in lacking:
        since = TABLE.since(kind, name)
        for spelling in (name, systemd_name(kind, name), kind.prefix + name):
            said = problem(OLD, **{kind.option: f"{spelling} 0x1"})
            assert said == (
                f'{PREFIX}{kind.option}: this kernel has no {kind.what} "{spelling.lower()}", '
                f"which Linux has had since {since}; "
                f"leave it out, or add {PREFIX}on_unknown=drop"
            )


def test_since_is_the_release_that_first_had_it() -> None:
    assert "since 6.17;" in problem(OLD, delegate_cmds="prog_stream_read_by_fd")
    assert "since 7.0;" in problem(OLD, delegate_attachs="BPFTraceFsession")
    assert "since 6.10;" in problem(OLD, delegate_attachs="BPF_TRACE_KPROBE_SESSION")


def test_drop_drops_only_what_a_newer_kernel_has() -> None:
    masks, dropped = resolved(
        OLD,
        lambda: TABLE,
        "drop",
        delegate_cmds="prog_load,prog_assoc_struct_ops,BPFTokenCreate",
        delegate_attachs="trace_fsession",
    )
    assert masks == {"delegate_cmds": 1 << 5}
    assert dropped == (
        "delegate_cmds=prog_assoc_struct_ops",
        "delegate_cmds=bpftokencreate",
        "delegate_attachs=trace_fsession",
    )
    assert "did you mean" in problem(OLD, "drop", delegate_cmds="prog_lod prog_assoc_struct_ops")


def test_drop_takes_the_bit_away_all_the_same() -> None:
    # Under a name that this kernel lacks, a bit of `any` would come to life with the next one.
    masks, dropped = resolved(
        OLD, lambda: TABLE, "drop", delegate_cmds="any,!prog_assoc_struct_ops"
    )
    assert masks == {"delegate_cmds": ALL_BITS & ~(1 << 38)}
    assert dropped == ("delegate_cmds=prog_assoc_struct_ops",)


@pytest.mark.parametrize(
    ("option", "item", "near"),
    [
        ("delegate_cmds", "prog_lod", '; did you mean "prog_load"'),
        ("delegate_cmds", "bpf_prog_lod", '; did you mean "prog_load"'),
        ("delegate_cmds", "map_creat", '; did you mean "map_create"'),
        ("delegate_maps", "hsah", '; did you mean "hash"'),
        ("delegate_maps", "ring_buf", '; did you mean "ringbuf"'),
        ("delegate_progs", "kprobes", '; did you mean "kprobe"'),
        ("delegate_attachs", "cgroup_inet_ingres", '; did you mean "cgroup_inet_ingress"'),
        ("delegate_progs", "bpf_map_type_hash", ""),
        ("delegate_cmds", "qqqq", ""),
        ("delegate_cmds", "q" * 1_000_000, ""),
        # One list's names are not the other's.
        ("delegate_maps", "kprobe", ""),
        ("delegate_cmds", "__max_bpf_cmd", ""),
    ],
)
def test_an_unknown_name_gets_the_nearest(option: str, item: str, near: str) -> None:
    kind = next(kind for kind in KINDS if kind.option == option)
    for drop in ("fail", "drop"):
        said = problem(HERE, drop, **{option: item})
        assert said.startswith(f'{PREFIX}{option}: no {kind.what} is called "{item[:64]}')
        assert near in said
        assert ("did you mean" in said) == bool(near)
        assert len(said) < 250


def test_all_unknown_names_at_once() -> None:
    said = problems(
        HERE,
        delegate_cmds="prog_lod,prog_load,!xxxx",
        delegate_maps="any,!hsah",
        delegate_progs="xdq",
    )
    assert [text.partition(":")[0].removeprefix(PREFIX) for text in said] == [
        *("delegate_cmds", "delegate_cmds", "delegate_maps", "delegate_progs"),
    ]


def test_a_value_beyond_the_mask() -> None:
    many = make_enum(CMDS, ((f"BPF_N{value}", value) for value in range(70)), guarded=False)
    assert mask(CMDS, "n63", {CMDS.option: many}) == 1 << 63
    for drop in ("fail", "drop"):
        assert '"n64" is command 64, and a mask has only bits 0 to 63' in problem(
            {CMDS.option: many}, drop, delegate_cmds="n64"
        )


# ---- bits to words


@BY_KIND
@settings(deadline=None)
@given(st.data())
def test_what_is_shown_reads_as_the_same_bits(kind: Kind, data: st.DataObject) -> None:
    enum = HERE[kind.option]
    bits = data.draw(BITS.filter(bool) | BITS.map(lambda bits: bits & enum.known).filter(bool))
    again = parse_shown(show(bits, enum), enum)
    if bits & enum.known == enum.known:
        assert again == ALL_BITS
    else:
        assert again == bits
    assert mask(kind, show(bits, enum)) == again


@BY_KIND
def test_showing(kind: Kind) -> None:
    enum = HERE[kind.option]
    assert show(0, enum) == ""
    assert show(ALL_BITS, enum) == "any"
    assert show(enum.known, enum) == "any"
    assert show(enum.known | 1 << 63, enum) == "any:0x8000000000000000"
    assert show(1 << 63, enum) == "0x8000000000000000"
    first, second = list(enum.names.items())[:2]
    assert show(1 << second[0] | 1 << first[0], enum) == f"{first[1]}:{second[1]}"


def test_the_first_alias_is_shown() -> None:
    assert show(1 << 10, LATEST[CMDS.option]) == "prog_test_run"
    assert show(1 << 19, LATEST[MAPS.option]) == "cgroup_storage_deprecated"


def test_without_names_only_numbers_can_be_read() -> None:
    assert parse_shown("0x21", None) == 0x21
    assert parse_shown("any", None) == ALL_BITS
    for text in ("prog_load", "", "0x", "0xz", "any:prog_load"):
        with pytest.raises(ValueError, match=r".+"):
            parse_shown(text, None)


def test_a_name_that_we_lack_is_no_mask() -> None:
    with pytest.raises(ValueError, match="brand_new"):
        parse_shown("prog_load:brand_new", HERE[CMDS.option])


def grant(**masks: int) -> Grant:
    return Grant(masks=masks, path=PATH, mode=MODE)


def wrong(granted: Grant, *shown: str, enums: Mapping[str, Enum] = HERE) -> list[str]:
    return differences(granted, ("rw", "mode=777", *shown), enums)


def test_a_kernel_before_6_9_shows_nothing() -> None:
    both = grant(delegate_cmds=1 << 5, delegate_maps=ALL_BITS)
    assert wrong(both) == [
        'delegate_cmds is "" and should be 0x20',
        'delegate_maps is "" and should be 0xffffffffffffffff',
    ]
    assert wrong(both, enums={}) == wrong(both)


def test_more_than_granted_differs() -> None:
    assert wrong(grant(delegate_cmds=1), "delegate_cmds=map_create", "delegate_progs=xdp") == [
        'delegate_progs is "xdp" and should be 0x0'
    ]
    # Also in words that nobody needed to understand for the grant.
    assert wrong(grant(), "delegate_cmds=prog_load", enums={}) != []
    assert wrong(grant(delegate_cmds=1), "delegate_cmds=any") != []


def test_a_kernel_without_names_shows_numbers() -> None:
    # Without BTF we have the names of a header or the table, and the kernel none.
    assert wrong(grant(delegate_cmds=0x21), "delegate_cmds=0x21") == []
    assert wrong(grant(delegate_cmds=0x21), "delegate_cmds=0x20") != []
    assert wrong(grant(delegate_maps=ALL_BITS), "delegate_maps=0xffffffffffffffff", enums={}) == []


def test_what_a_mount_shows_is_quoted() -> None:
    (said,) = wrong(grant(delegate_cmds=1), "delegate_cmds=\n\x1b[2J")
    assert said == r'delegate_cmds is "\n\x1b[2J" and should be 0x1'
