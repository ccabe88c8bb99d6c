"""What the values may be: lists, masks, paths, modes, and what to do with unknown names."""

import pytest

from oci_bpf_hook.bpf.names import KINDS, Kind
from oci_bpf_hook.delegation.annotations import split
from oci_bpf_hook.delegation.written import written
from tests.support.requests import io, items, problem, request, understand


def test_every_list_is_its_own() -> None:
    found = request(
        io(
            delegate_cmds="map_create",
            delegate_maps="hash:array",
            delegate_progs="xdp",
            delegate_attachs="any",
        )
    )
    assert found.lists == {
        "delegate_cmds": ("map_create",),
        "delegate_maps": ("hash", "array"),
        "delegate_progs": ("xdp",),
        "delegate_attachs": ("any",),
    }


@pytest.mark.parametrize("text", ["", " ", ",", ":", " , : \t\n", "::::"])
def test_an_empty_list_is_the_same_as_none(text: str) -> None:
    assert understand(io(delegate_cmds=text)) is None
    assert request(io(delegate_cmds=text, delegate_maps="hash")).lists == {
        "delegate_maps": ("hash",)
    }


@pytest.mark.parametrize(
    "text",
    [
        "map_create,prog_load",
        "map_create:prog_load",
        "map_create prog_load",
        "map_create\tprog_load\n",
        " map_create , prog_load ",
        ",,map_create::,: prog_load,",
        "map_create\r\n,\r\nprog_load",
        "map_create,prog_load,map_create",
        "MAP_CREATE:Prog_Load",
    ],
)
def test_separators_and_case(text: str) -> None:
    assert items(text) == ("map_create", "prog_load")
    assert len(split(text)) in (2, 3)


def test_items_are_kept_as_written_but_in_lower_case() -> None:
    text = "any !kprobe !0xF BPF_PROG_LOAD BPFProgLoad prog_load !BPFProgRun"
    assert items(text) == (
        *("any", "!kprobe", "!0xf", "bpf_prog_load", "bpfprogload", "prog_load", "!bpfprogrun"),
    )


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("0x0", "0x0"),
        ("0X1F", "0x1f"),
        ("0x0000000000000000000000000001", "0x1"),
        ("0xffffffffffffffff", "0xffffffffffffffff"),
        ("0x" + "0" * 100_000 + "8000000000000000", "0x8000000000000000"),
    ],
)
def test_masks_are_hexadecimal(text: str, item: str) -> None:
    assert items(text) == (item,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0x", "write 0x and hexadecimal digits"),
        ("0xg", "write 0x and hexadecimal digits"),
        ("0x-1", "write 0x and hexadecimal digits"),
        ("0x1_0", "write 0x and hexadecimal digits"),
        ("0x10000000000000000", "the largest mask is 0xffffffffffffffff"),
        ("0x" + "f" * 1_000_000, "the largest mask is 0xffffffffffffffff"),
        ("5", "is a decimal number, which the kernel would take for a mask and not for a command"),
        ("010", "is a decimal number"),
        ("1" * 1_000_000, "is a decimal number"),
        ("\u0665", "is a decimal number"),
        ("-1", "can't be the name of a command"),
        ("prog-load", "can't be the name of a command"),
        ("prog_load=1", "can't be the name of a command"),
        ("*", "can't be the name of a command"),
        ("any;prog_load", "can't be the name of a command"),
        ("prog_l\u00f6ad", "can't be the name of a command"),
        ("prog_load\x00", "can't be the name of a command"),
        ("any,!", "can't be the name of a command"),
        ("any,!!prog_load", "can't be the name of a command"),
        ("any,!any", "leaves nothing of the list"),
        ("!prog_load", 'begin with "any" or with names'),
        ("!prog_load !0x1", 'begin with "any" or with names'),
    ],
)
def test_what_is_no_item(text: str, says: str) -> None:
    found = problem(io(delegate_cmds=text))
    assert says in found
    assert found.startswith('"io.bpffs.delegate_cmds": ')
    assert len(found) < 600


def test_a_look_alike_is_no_name() -> None:
    assert "can't be the name" in problem(io(delegate_progs="\u212aprobe"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.option)
def test_a_problem_names_what_the_list_is_of(kind: Kind) -> None:
    assert f"for a {kind.what};" in problem(io(**{kind.option: "5"}))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/sys/fs/bpf", "/sys/fs/bpf"),
        ("//run///bpf//", "/run/bpf"),
        ("/a", "/a"),
        ("/a b,c:d", "/a b,c:d"),
        ("/...", "/..."),
        ("/a/..b", "/a/..b"),
        ("/stra\u00dfe", "/stra\u00dfe"),
        ("/" + "a" * 4094, "/" + "a" * 4094),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert request(io(delegate_cmds="any", path=text)).path == path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begin with /"),
        ("sys/fs/bpf", "begin with /"),
        (" /sys/fs/bpf", "begin with /"),
        ("/sys/fs/bpf\n", "4095 printable characters"),
        ("/a\x00b", "4095 printable characters"),
        ("/a\x7fb", "4095 printable characters"),
        ("/a\u202eb", "4095 printable characters"),
        ("/\ud800", "4095 printable characters"),
        ("/" + "a" * 4095, "4095 printable characters"),
        ("/" + "\u00fc" * 2048, "4095 printable characters"),
        ("/" * 5_000_000 + "a", "4095 printable characters"),
        ("/..", 'has "." or ".." in it'),
        ("/run/../sys", 'has "." or ".." in it'),
        ("/run/./bpf", 'has "." or ".." in it'),
        ("/run/.", 'has "." or ".." in it'),
        ("/", "the container's root itself"),
        ("///", "the container's root itself"),
    ],
)
def test_what_is_no_path(text: str, says: str) -> None:
    found = problem(io(delegate_cmds="any", path=text))
    assert says in found
    assert found.startswith('"io.bpffs.path": ')


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("0", 0),
        ("755", 0o755),
        ("0755", 0o755),
        ("1777", 0o1777),
        ("07777", 0o7777),
        (" 700\n", 0o700),
    ],
)
def test_modes_are_octal(text: str, mode: int) -> None:
    assert request(io(delegate_cmds="any", mode=text)).mode == mode


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "0o755",
        "0x1ff",
        "10000",
        "-1",
        "+755",
        "7 5",
        "u=rwx",
        "000755",
        "\u0661",
        "1_7",
        "7" * 1_000_000,
    ],
)
def test_what_is_no_mode(text: str) -> None:
    assert "isn't an octal mode; write it as 0755 or 1777" in problem(
        io(delegate_cmds="any", mode=text)
    )


@pytest.mark.parametrize(
    ("text", "drop"), [("fail", False), ("drop", True), (" DROP\n", True), ("Fail", False)]
)
def test_on_unknown(text: str, *, drop: bool) -> None:
    assert request(io(delegate_cmds="any", on_unknown=text)).drop_unknown is drop


@pytest.mark.parametrize("text", ["", "ignore", "true", "fail,drop", "drop\x00"])
def test_what_is_no_on_unknown(text: str) -> None:
    assert 'is neither "fail" nor "drop"' in problem(io(delegate_cmds="any", on_unknown=text))


@pytest.mark.parametrize(("text", "shim"), [("true", True), (" TRUE ", True), ("false", False)])
def test_the_shim(text: str, *, shim: bool) -> None:
    asked_for = io(delegate_cmds="any", shim=text)
    assert request(asked_for).shim is shim
    assert request(written(request(asked_for))).shim is shim


@pytest.mark.parametrize("text", ["", "1", "yes", "on", "true,", "\u017ftrue"])
def test_what_is_no_shim(text: str) -> None:
    assert 'is neither "true" nor "false"' in problem(io(delegate_cmds="any", shim=text))


def test_the_shim_alone_delegates_nothing() -> None:
    assert "alone delegates nothing" in problem(io(shim="true"))
